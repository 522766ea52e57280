"""known-failures.yaml: failures that a project knows of, each with an owner, a reason and the last day of its excuse.

A known failure is shown in every report, and does not decide the exit code. It does when the scenario passes, because
then the entry has no use any more, and after its last day, because somebody promised to look by then.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from harness.model import Model
from harness.report.outcome import Outcome
from harness.yamlfile import Mistakes, YamlFile

_Text = Annotated[str, Field(min_length=1, max_length=500)]


class KnownFailure(Model):
    """One entry."""

    scenario: _Text
    owner: _Text
    reason: _Text
    expires: datetime.date = Field(description="The last day.")


class KnownFailures(Model):
    """The file."""

    known_failures: Annotated[tuple[KnownFailure, ...], Field(strict=False)]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A known failure, and its place in the file."""

    known: KnownFailure
    place: str  # "known-failures.yaml:3"

    def words(self) -> str:
        """The entry in one line."""
        return f"known failure of {self.known.owner} until {self.known.expires}: {self.known.reason}"

    def is_over(self, day: datetime.date) -> bool:
        """Whether its last day has passed."""
        return day > self.known.expires


def read(path: Path) -> dict[str, Entry]:
    """The entries of a file by scenario.

    Raises Mistakes: with file, line, column and field.
    """
    source = YamlFile.read(path)
    if not isinstance(source.values, dict):
        raise Mistakes([source.mistake((), "expected a mapping with known-failures, a list")])
    try:
        file = KnownFailures.model_validate(source.values)
    except ValidationError as error:
        keys = [*KnownFailure.model_fields, "known-failures"]
        raise Mistakes([source.worded(dict(one), keys) for one in error.errors(include_url=False)]) from error
    found, wrong = dict[str, Entry](), []
    for index, known in enumerate(file.known_failures):
        loc = ("known-failures", index, "scenario")
        if known.scenario in found:
            wrong.append(source.mistake(loc, f"{known.scenario} is already in {found[known.scenario].place}"))
        found[known.scenario] = Entry(known=known, place=f"{source.file}:{source.mistake(loc, '').line}")
    if wrong:
        raise Mistakes(wrong)
    return found


def today() -> datetime.date:
    """The day in UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def judged(outcome: Outcome, entry: Entry | None, day: datetime.date) -> Outcome:
    """An outcome with what is known of it: why its failure is excused, or why it is not."""
    if entry is None or outcome.verdict not in ("failed", "passed"):
        return outcome
    if entry.is_over(day):
        return replace(outcome, overdue=f"{entry.place}: expired: {entry.words()}")
    if outcome.verdict == "passed":
        return replace(outcome, overdue=f"{entry.place}: passes, so this entry has no use: {entry.words()}")
    return replace(outcome, known=entry.words())


def expired(entries: Sequence[Entry], day: datetime.date) -> list[str]:
    """A line for each entry after its last day."""
    return [f"{entry.known.scenario}: {entry.place}: {entry.words()}" for entry in entries if entry.is_over(day)]
