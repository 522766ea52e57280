"""When genie is put back after somebody took it away: at once at first, then ever later. Pure.

Two that each insist on their own file in net.d would otherwise undo each other's once a second for ever, with a runtime
that reads its configuration as often.
"""

from __future__ import annotations

from dataclasses import dataclass

AT_ONCE = 3  # times in a row
LONGEST = 300.0  # seconds
FORGET = 3 * LONGEST  # seconds without a removal after which the next one is a first one


@dataclass
class Patience:
    """times: removals in a row. last: when the last one was, in seconds of any clock."""

    times: int = 0
    last: float = 0.0

    def removed(self, now: float) -> float:
        """Seconds to wait after a removal that was found now."""
        self.times = 1 if now - self.last > FORGET else self.times + 1
        self.last = now
        return min(2.0 ** min(self.times - AT_ONCE, 20), LONGEST) if self.times > AT_ONCE else 0.0

    @property
    def begins(self) -> bool:
        """Whether the last removal was the first that genie waits after."""
        return self.times == AT_ONCE + 1
