"""What a check is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.conformance.scene import Scene
from harness.conformance.spec import VERSIONS, Section


@dataclass(frozen=True, kw_only=True)
class Check:
    """One demand of the specification and how to see whether a plugin meets it."""

    name: str
    sentence: str
    section: Section
    run: Callable[[Scene], None]
    since: str = VERSIONS[0]
    until: str = VERSIONS[-1]
    feature: str = ""  # empty: core, which every plugin must do; else only where it is claimed
    each: bool = False  # with every version that the plugin claims, not with the newest alone
    ends: bool = False  # with the oldest and the newest of them
    first: bool = False  # only of a plugin that makes the interface
    after: tuple[str, ...] = ()  # checks that must have passed for this one to say something of its own
    repeat: bool = True  # a failure counts when it happens again
    batch: str = ""  # checks of one batch look at one attachment, which the first of them makes
    should: bool = False  # the specification recommends it, and does not demand it

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
    after: tuple[str, ...] = ("add-succeeds",),
    repeat: bool = True,
    batch: str = "",
    should: bool = False,
) -> Callable[[Callable[[Scene], None]], Check]:
    """Make a check of the function below."""

    def made(run: Callable[[Scene], None]) -> Check:
        return Check(
            name=name, sentence=sentence, section=section, run=run, since=since, until=until, feature=feature,
            each=each, ends=ends, first=first, after=after, repeat=repeat, batch=batch, should=should,
        )  # fmt: skip

    return made
