"""When genie is restored: at first immediately, then later and later, and immediately again after a quiet time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genie.node.patience import AT_ONCE, FORGET, LONGEST, Patience


def test_patience_waits_longer_for_each_removal_in_a_row() -> None:
    patience, now, waits = Patience(), 1000.0, []
    for _ in range(AT_ONCE + 12):
        waits.append(patience.removed(now))
        assert patience.begins == (len(waits) == AT_ONCE + 1), "one warning"
        now += waits[-1] + 1
    assert waits == [0.0] * AT_ONCE + [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, *[LONGEST] * 4]


@given(st.lists(st.floats(1, 2 * FORGET), min_size=1, max_size=40))
def test_whenever_it_is_removed(gaps: list[float]) -> None:
    patience, now, wait = Patience(), 0.0, 0.0
    for gap in gaps:
        quiet = gap
        now += wait + gap
        before, wait = wait, patience.removed(now)
        assert 0 <= wait <= LONGEST
        if before + quiet > FORGET:
            assert wait == 0, "after a quiet time it is put back at once"
        else:
            assert wait >= before, "never sooner than the time before"
