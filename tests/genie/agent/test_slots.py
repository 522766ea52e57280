"""Slots: their number never changes, in every case for holders and waiters."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from genie.agent.slots import Key, Slots

BLUE, DEL = ("/net.d/blue.conf", "ADD"), ("/net.d/blue.conf", "DEL")
KEYS = [BLUE, DEL, ("NetworkAttachmentDefinition ns/blue", "ADD")]


class User:
    """A client that wants a slot, holds it until released, and may be cancelled."""

    def __init__(self, slots: Slots, key: Key, order: float) -> None:
        self.key, self.order = key, order
        self.holds = False
        self.go = asyncio.Event()
        self.waits: set[asyncio.Future[None]] = set()
        self.task = asyncio.create_task(self._run(slots))

    async def _run(self, slots: Slots) -> None:
        async with slots.use(self.key, self.order, self.waits):
            self.holds = True
            try:
                await self.go.wait()
            finally:
                self.holds = False

    def call_off(self) -> None:
        for wait in self.waits:
            if not wait.done():
                wait.set_exception(ConnectionError("gone"))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


actions = st.lists(
    st.tuples(st.sampled_from(["come", "leave", "cancel", "call off", "let it run"]), st.integers(0, 30)), max_size=60
)


@given(size=st.integers(1, 3), actions=actions)
def test_no_slot_is_lost_or_made_whatever_happens(size: int, actions: list[tuple[str, int]]) -> None:
    async def go() -> None:
        slots, users = Slots(size), list[User]()
        for what, number in actions:
            someone = users[number % len(users)] if users else None
            match what:
                case "come":
                    users.append(User(slots, KEYS[number % len(KEYS)], number))
                case "leave" if someone:
                    someone.go.set()
                case "cancel" if someone:
                    someone.task.cancel()
                case "call off" if someone:
                    someone.call_off()
                case "let it run":
                    await settled()
            held = Counter(user.key for user in users if user.holds)
            assert all(count <= size for count in held.values())
        await settled()
        for key in KEYS:  # nobody waits while there is a slot
            waiting = [user for user in users if user.key == key and user.waits]
            assert not waiting or sum(user.holds for user in users if user.key == key) == size
        for user in users:
            user.go.set()
        await asyncio.gather(*(user.task for user in users), return_exceptions=True)
        assert (slots.taken, slots.waiting, slots._taken, slots._waiting) == (0, 0, {}, {})

    asyncio.run(go())


def test_a_full_network_is_in_the_way_of_its_own_verb_alone() -> None:
    async def go() -> None:
        slots = Slots(1)
        first, second, delete, other = (User(slots, key, 0) for key in (BLUE, BLUE, DEL, KEYS[2]))
        await settled()
        assert (first.holds, second.holds, delete.holds, other.holds) == (True, False, True, True)
        for user in (first, second, delete, other):
            user.go.set()
        await settled()
        assert not slots.taken

    asyncio.run(go())


def test_earlier_calls_come_first() -> None:
    async def go() -> list[float]:
        slots, began = Slots(1), list[float]()
        users = [User(slots, BLUE, order) for order in (0, 5, 3, 4, 1, 2)]
        await settled()
        while len(began) < len(users):
            (holder,) = (user for user in users if user.holds)
            began.append(holder.order)
            holder.go.set()
            await settled()
        return began

    assert asyncio.run(go()) == [0, 1, 2, 3, 4, 5]
