"""The exit codes of a run and of `harness`. docs/ci.md has the same table for readers."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """An exit code. If several apply, the first one in the order of `ORDER` counts."""

    PASSED = 0
    FAILED = 1  # a scenario failed, or something was left on the nodes
    BROKEN = 3  # the environment stopped it: no plugins, no cluster, no disk, or the time for the run was over
    USAGE = 4  # an option, a profile or a scenario file is wrong
    NOTHING = 5  # nothing was tested, or not the networks that the options name
    INTERRUPTED = 130


ORDER = (Exit.INTERRUPTED, Exit.USAGE, Exit.FAILED, Exit.BROKEN, Exit.NOTHING, Exit.PASSED)


class Ended(Exception):
    """The run ends before its first scenario."""

    def __init__(self, code: Exit, why: str) -> None:
        self.code, self.why = code, why
        super().__init__(why)
