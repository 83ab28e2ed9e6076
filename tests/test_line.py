"""The line of those who wait for room: who is next, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.errors import NodeBusy
from subnet.pool.wait_queue import Line, Place

# Far longer than any test: who waits so long was forgotten.
LONG = 1000.0


Name = tuple[int, int]


class Room:
    """So many slots, which those in line take one by one; `served` are their names in that order."""

    def __init__(self, line: Line) -> None:
        self.free = 0
        self.served: list[Name] = []
        self._line = line

    def add(self, slots: int = 1) -> None:
        self.free += slots
        self._line.stir("m")

    async def take(self, place: Place, name: Name) -> None:
        with place:
            while not (place.first and self.free):
                await place.wait(LONG)
            self.free -= 1
            self.served.append(name)


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until they have brought it about."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.integers(1, 4))
def test_order(priorities: list[int], slots: int) -> None:
    """Slots that get free go by priority, and by arrival among equals, however many get free at a time."""

    async def run() -> None:
        line = Line()
        room = Room(line)
        places = [(line.place("m", priority), (priority, n)) for n, priority in enumerate(priorities)]
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            # They begin to stand in line in another order than they came in.
            for place, name in reversed(places):
                tasks.create_task(room.take(place, name))
            await asyncio.sleep(0)
            while len(room.served) < len(priorities):
                expected = min(len(priorities), len(room.served) + slots)
                room.add(slots)
                await until(lambda expected=expected: len(room.served) >= expected)  # type: ignore[misc]
        assert room.served == sorted(room.served)

    asyncio.run(run())


async def test_the_urgent_comes_late() -> None:
    """Someone more urgent goes in front of those who wait already, and nobody else is let past them."""
    line = Line()
    with line.place("m") as early, line.place("m", 5) as late:
        early.check()
        with line.place("m", -1) as urgent:
            for other in (early, late):
                with pytest.raises(NodeBusy):
                    other.check()
            urgent.check()
        early.check()


async def test_who_gives_up() -> None:
    """The next one looks as soon as the first is gone, though nothing was stirred."""
    line = Line()
    room = Room(line)
    first, second = (asyncio.create_task(room.take(line.place("m"), name)) for name in ((0, 0), (0, 1)))
    await asyncio.sleep(0)
    room.free = 1
    first.cancel()
    async with asyncio.timeout(20):
        await second
    assert room.served == [(0, 1)]


async def test_a_place_is_kept() -> None:
    """Who took room and lost it again stands where it stood before, in front of those who came later."""
    line = Line()
    place = line.place("m")
    with place:
        place.check()
    with line.place("m") as later:
        later.check()
        with place, pytest.raises(NodeBusy):
            later.check()
        later.check()


async def test_models_do_not_wait_for_one_another() -> None:
    """Each model has a line of its own."""
    line = Line()
    with line.place("m") as one, line.place("other", 7) as other, line.place(None) as whichever:
        line.stir("unknown")
        assert not line.waits("unknown")
        for place in (one, other, whichever):
            place.check()
        assert line.waits("m")
    assert not line.waits("m")


async def test_the_first_looks_by_itself() -> None:
    """Room may come without a word; after the time it wanted, the first looks again."""
    with Line().place("m") as place:
        async with asyncio.timeout(20):
            await place.wait(0.001)
        place.check()


async def test_a_stir_is_not_lost() -> None:
    """Room that comes between a look and the wait is seen: the wait is over at once."""
    line = Line()
    with line.place("m") as place:
        line.stir("m")
        async with asyncio.timeout(20):
            await place.wait(LONG)
