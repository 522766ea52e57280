"""Compares two runs of scenarios: what became worse, what was repaired, and what is as before."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from harness.exits import ORDER, Exit
from harness.report.alike import alike
from harness.report.known import Entry, expired, judged
from harness.report.outcome import Outcome
from harness.report.published import ScenarioReport
from harness.report.words import short

_FAILING = ("failed", "blocked")
_SAYS = ("passed", *_FAILING)  # verdicts about the plugin
_NOISE = 1.5  # as many times as long, and
_LEAST = 2.0  # seconds more, is no noise

TITLES = {
    "new": "New failures",
    "skips": "Newly skipped",
    "lost": "No verdict any more",
    "overdue": "Known failures that are none, or are over",
    "still": "Still failing",
    "known": "Known failures",
    "fixed": "Fixed",
    "slower": "Slower",
}
_WORSE = {"new": Exit.FAILED, "skips": Exit.FAILED, "overdue": Exit.FAILED, "lost": Exit.BROKEN}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A scenario, and what changed about it in words."""

    scenario: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs between two runs, by the keys of `TITLES`."""

    base: str
    head: str
    changes: Mapping[str, tuple[Change, ...]]

    @property
    def code(self) -> Exit:
        """0 if nothing became worse; a scenario that is slower is not."""
        return min((code for key, code in _WORSE.items() if self.changes[key]), key=ORDER.index, default=Exit.PASSED)


def compare(base: ScenarioReport, head: ScenarioReport, known: Mapping[str, Entry], day: datetime.date) -> Difference:
    """Compare a run with an earlier one.

    known: the entries of known-failures.yaml; what the run itself knew of counts, too.
    """
    before = {each.name: each for each in base.scenarios}
    after = {each.name: judged(each, known.get(each.name), day) for each in head.scenarios}
    changes: dict[str, list[Change]] = {key: [] for key in TITLES}
    for name in sorted({**before, **after}):
        if found := _change(before.get(name), after.get(name)):
            changes[found[0]].append(Change(scenario=name, text=found[1]))
    over = [entry for name, entry in known.items() if name not in after]
    changes["overdue"] += [Change(scenario=line.partition(":")[0], text=line) for line in expired(over, day)]
    changes["slower"] = list(_slower(before, after))
    return Difference(
        base=_named(base), head=_named(head), changes={key: tuple(found) for key, found in changes.items()}
    )


def _named(report: ScenarioReport) -> str:
    commit = report.project.commit
    at = f", genie {commit[:12]}{'+changes' if commit.endswith('+changes') else ''}" if commit else ""
    return f"{report.date} on {report.cluster.backend}{at}"


def _change(before: Outcome | None, after: Outcome | None) -> tuple[str, str] | None:
    """The key in `TITLES`, and the words; None if nothing is to be reported."""
    was = before.verdict if before else "not there"
    if after is None:
        return "lost", f"{was} before, and not in the report now"
    if after.overdue or after.known:
        return ("overdue", after.overdue) if after.overdue else ("known", after.known)
    if after.verdict in _FAILING:
        return ("still" if was in _FAILING else "new"), f"{after.verdict}: {short(after)}" + _otherwise(before, after)
    now, failure = after.verdict, short(before) if before else ""
    places = {
        "skips": now == "skipped" and before is not None and was != "skipped",
        "lost": now in ("broken", "not run") and (before is None or was in _SAYS),
        "fixed": now == "passed" and was in _FAILING,
    }
    key = next((key for key, applies in places.items() if applies), "")
    return (key, f"{was} before, now {now}: {failure if key == 'fixed' else short(after)}") if key else None


def _otherwise(before: Outcome | None, after: Outcome) -> str:
    """That a failure is another one than before."""
    if before is None or before.verdict != after.verdict:
        return ""
    plain = [alike(short(replace(each, attempts=()))) for each in (before, after)]
    return "" if plain[0] == plain[1] else f" (before: {short(before)})"


def _slower(before: Mapping[str, Outcome], after: Mapping[str, Outcome]) -> Iterable[Change]:
    """Scenarios that took longer than the speed of the two machines explains."""
    both = [(before[name], after[name]) for name in after if name in before]
    both = [(old, new) for old, new in both if old.verdict == new.verdict == "passed" and old.seconds > 0]
    speed = statistics.median([new.seconds / old.seconds for old, new in both] or [1.0])
    for old, new in sorted(both, key=lambda pair: pair[1].name):
        usual = old.seconds * speed
        if new.seconds > _NOISE * usual and new.seconds - usual > _LEAST:
            text = f"{old.seconds:.1f} s before, now {new.seconds:.1f} s, in a run that takes {speed:.2f} times as long"
            yield Change(scenario=new.name, text=text)


def text(found: Difference) -> str:
    parts = [f"{found.base}\n{found.head}\n"]
    for key, title in TITLES.items():
        if changes := found.changes[key]:
            lines = "".join(f"  {each.scenario}: {each.text}\n" for each in changes)
            parts.append(f"{title} ({len(changes)})\n{lines}")
    return "\n".join(parts if len(parts) > 1 else [*parts, "Nothing changed.\n"])


def as_json(found: Difference) -> dict[str, object]:
    changes = {key: [vars(each) for each in some] for key, some in found.changes.items()}
    return {"base": found.base, "head": found.head, "exit": found.code, **changes}


def markdown(found: Difference) -> str:
    """For a pull request, or a job's summary."""
    counts = [f"{TITLES[key].lower()} ({len(some)})" for key, some in found.changes.items() if some]
    mark = "✅" if found.code is Exit.PASSED else "❌"
    parts = [f"### {mark} Scenarios: {', '.join(counts) or 'nothing changed'}\n"]
    for key, some in found.changes.items():
        if some:
            rows = "".join(f"| `{_cell(each.scenario)}` | {_cell(each.text)} |\n" for each in some)
            table = f"| scenario | |\n|---|---|\n{rows}"
            head = f"{TITLES[key]} ({len(some)})"
            closed = key not in _WORSE
            parts.append(
                f"<details><summary>{head}</summary>\n\n{table}\n</details>\n" if closed else f"**{head}**\n\n{table}"
            )
    parts.append(f"<sub>Base: {_cell(found.base)}. Head: {_cell(found.head)}.</sub>\n")
    return "\n".join(parts)


_MARKUP = str.maketrans({char: f"&#{ord(char)};" for char in "<>&|`*_[]@#\\~"} | {"\n": " ", "\r": " "})


def _cell(text: str) -> str:
    """A text that Markdown shows as it is: it may come from a plugin, and must not mention people or make links."""
    return (text if len(text) <= 300 else f"{text[:300]} …").translate(_MARKUP)
