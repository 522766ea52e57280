"""When to restore genie after somebody removed it: at once at first, then later each time. Pure.

Otherwise two programs that each want their own file first in net.d would undo each other's change every second, and the
runtime would read its configuration as often.
"""

from __future__ import annotations

from dataclasses import dataclass

AT_ONCE = 3  # times in a row
LONGEST = 300.0  # seconds
FORGET = 3 * LONGEST  # after this many seconds without a removal, counting starts again


@dataclass
class Patience:
    """times: removals in a row. last: the time of the last one, in seconds of any clock."""

    times: int = 0
    last: float = 0.0

    def removed(self, now: float) -> float:
        """Seconds to wait after a removal that was just found."""
        self.times = 1 if now - self.last > FORGET else self.times + 1
        self.last = now
        return min(2.0 ** min(self.times - AT_ONCE, 20), LONGEST) if self.times > AT_ONCE else 0.0

    @property
    def begins(self) -> bool:
        """Whether the last removal was the first one that causes a wait."""
        return self.times == AT_ONCE + 1
