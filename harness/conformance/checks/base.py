"""The class of checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.conformance.scene import Scene
from harness.conformance.spec import VERSIONS, Section


@dataclass(frozen=True, kw_only=True)
class Check:
    """One requirement of the specification, with a function that tests it."""

    name: str
    sentence: str
    section: Section
    run: Callable[[Scene], None]
    since: str = VERSIONS[0]
    until: str = VERSIONS[-1]
    feature: str = ""  # empty: core, for every plugin; otherwise only for plugins that claim this feature
    each: bool = False  # run with every version that the plugin claims, not only with the newest
    ends: bool = False  # with the oldest and the newest of them
    first: bool = False  # only for a plugin that makes the interface
    ipam: bool | None = None  # whether it is also for an ipam plugin alone; by default unless `first`
    several: bool = False  # needs several containers at the same time
    after: tuple[str, ...] = ()  # checks that must pass before this one gives a separate verdict
    repeat: bool = True  # run a failed check again; if it then passes, it is flaky
    batch: str = ""  # the checks of a batch share one attachment, which the first of them makes
    should: bool = False  # the specification recommends it, but does not require it

    def describe(self) -> dict[str, str]:
        """For lists and reports."""
        level = f"extended: {self.feature}" if self.feature else "core"
        return {"name": self.name, "sentence": self.sentence, "section": self.section.title, "level": level,
                "strength": "should" if self.should else "must"}  # fmt: skip


def check(
    name: str,
    sentence: str,
    section: Section,
    *,
    since: str = VERSIONS[0],
    until: str = VERSIONS[-1],
    feature: str = "",
    each: bool = False,
    ends: bool = False,
    first: bool = False,
    ipam: bool | None = None,
    several: bool = False,
    after: tuple[str, ...] = ("add-succeeds",),
    repeat: bool = True,
    batch: str = "",
    should: bool = False,
) -> Callable[[Callable[[Scene], None]], Check]:
    """Decorator: make a check from a function."""

    def made(run: Callable[[Scene], None]) -> Check:
        return Check(
            name=name, sentence=sentence, section=section, run=run, since=since, until=until, feature=feature,
            each=each, ends=ends, first=first, ipam=ipam, several=several, after=after, repeat=repeat, batch=batch,
            should=should,
        )  # fmt: skip

    return made
