"""`pytest --pyargs harness.conformance --profile mynet.yaml`: each check of a vendor's plugin is a test, by its name.

What a check builds on is made once in each process, so the checks may be selected and spread over pytest-xdist's
workers in any way. A check that does not apply is skipped with the reason. One that is blocked by another is skipped,
too, if the other is a test of the same run, which fails; else it fails itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.run.collect import CHECKS_PACKAGE

if TYPE_CHECKING:
    from harness.conformance.checks.base import Check
    from harness.conformance.run import Checked, Series
    from harness.conformance.subject import Subject

FOLDER = Path(__file__).resolve().parents[1] / "conformance"
_SERIES: pytest.StashKey[Series] = pytest.StashKey()


def prepare(config: pytest.Config) -> None:
    """Find what is to be tested.

    Raises UsageError: nothing is, or the profile is wrong.
    """
    from harness.conformance.run import Series

    if config.option.report:
        raise pytest.UsageError("--report is of scenarios: expected `harness conformance --report FILE`")
    config.stash[_SERIES] = Series(_subject(config), config.option.rounds)


def _subject(config: pytest.Config) -> Subject:
    from harness.conformance.profile import check
    from harness.conformance.subject import Unusable

    option, paths = config.option, [Path(each) for each in config.option.plugin_path]
    plugin = Path(option.plugin) if option.plugin else None
    try:
        if len(option.profile) == 1:
            subject = check.read(Path(option.profile[0]), plugin, paths)
        elif plugin and option.conf and not option.profile:
            subject = check.of_files(plugin, Path(option.conf), paths)
        else:
            raise pytest.UsageError(f"{CHECKS_PACKAGE}: expected one --profile FILE, or --plugin FILE and --conf FILE")
    except Unusable as error:
        raise pytest.UsageError(str(error)) from error
    if option.cni_versions:
        subject = replace(subject, limits=(*subject.limits, tuple(option.cni_versions.split(","))))
    if not subject.versions:
        raise pytest.UsageError(f"--cni-versions: expected some of {', '.join(subject.supported)}")
    return subject


def folder(path: Path, parent: pytest.Collector) -> Checks | None:
    """The collector of the checks, where the package is what pytest was asked for."""
    return Checks.from_parent(parent, path=path) if path == FOLDER else None


class Checks(pytest.Directory):
    def collect(self) -> Iterable[pytest.Item]:
        """Each of them, in the order of a report."""
        from harness.conformance.checks import CHECKS

        return [CheckItem.from_parent(self, name=check.name, check=check) for check in CHECKS]


class CheckFailed(Exception):
    """A check did not pass; the message has what was found."""


class CheckItem(pytest.Item):
    """A check as a test."""

    def __init__(self, *, check: Check, **rest: Any) -> None:
        super().__init__(**rest)
        self.check = check

    def runtest(self) -> None:
        """Make it, after what it builds on."""
        from harness.conformance.findings import Verdict

        result = self.config.stash[_SERIES].check(self.name)
        self.user_properties += list(self.check.describe().items())
        reason = "; ".join(dict.fromkeys(trial.reason for trial in result.trials if trial.reason))
        if result.verdict is Verdict.SKIPPED or (result.verdict is Verdict.BLOCKED and self._is_reported(result)):
            raise pytest.skip.Exception(reason, _use_item_location=True)
        if result.verdict is Verdict.WARNED:
            self.warn(pytest.PytestWarning(self._described(result)))
        elif result.verdict is not Verdict.PASSED:
            raise CheckFailed(self._described(result))

    def _is_reported(self, result: Checked) -> bool:
        """Whether what blocks it, or what blocks that, is a test of this run."""
        here = {item.name for item in self.session.items if isinstance(item, CheckItem)}
        blockers = _blockers(result)
        others = [self.config.stash[_SERIES].check(name) for name in blockers if name not in here]
        return bool(blockers) and all(map(self._is_reported, others))

    def _described(self, result: Checked) -> str:
        """What was found, with a script that shows it; of a check that is blocked, what blocks it."""
        from harness.conformance import report

        lines = [report.line(result)]
        lines += [self._described(self.config.stash[_SERIES].check(name)) for name in _blockers(result)]
        scripts = [each["reproducer"] for each in report.merged_findings(result) if each["fault"] != "profile"]
        return "\n".join([*lines, *(f"\nA script that shows it:\n\n{script}" for script in scripts[:1])])

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The finding, not the code that found it."""
        if isinstance(excinfo.value, CheckFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is, and its name."""
        return self.path, 0, self.name


def _blockers(result: Checked) -> list[str]:
    """The checks that block one; their names come first in the reasons."""
    from harness.conformance.findings import Verdict

    blocked = [trial for trial in result.trials if trial.verdict is Verdict.BLOCKED]
    return list(dict.fromkeys(name for trial in blocked if (name := trial.reason.split(" ")[0]) in result.check.after))
