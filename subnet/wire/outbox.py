"""The sending half of a connection: callers post without waiting, one task writes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import groupby, islice
from typing import cast

from subnet.generation import Delta
from subnet.wire import columns, frames
from subnet.wire.messages import Deltas, Message

Send = Callable[[bytes], Awaitable[None]]
Item = bytes | columns.Row

# A peer that reads nothing for long must not get a frame that is larger than it takes.
_MOST_ROWS = 32_768


class Outbox:
    """Messages and deltas in the order posted; deltas that wait together leave as one frame.

    So an engine step costs one frame however many streams it advanced, and a slow peer gets fewer, larger
    frames instead of a longer queue.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def post(self, message: Message) -> None:
        """Raises what `frames.encode` does: what cannot be sent is the affair of who wants to send it."""
        frame = frames.encode(message)
        self._wake()
        self._items.append(frame)

    def post_delta(self, call: int, delta: Delta) -> None:
        if not self._items:
            self._wake()
        self._items.append((call, delta))

    async def emptied(self) -> None:
        """Wait until all that was posted is written."""
        await self._empty.wait()

    async def run(self, send: Send) -> None:
        """Write until cancelled, or until `send` raises."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            items, self._items = self._items, []
            for frame in to_frames(items):
                await send(frame)
            if not self._items:
                self._empty.set()

    def _wake(self) -> None:
        self._empty.clear()
        self._filled.set()


def to_frames(items: list[Item]) -> list[bytes]:
    """The frames that carry `items`: those that are some already, and one for each run of deltas between them."""
    ready: list[bytes] = []
    # `type` is called without a Python frame; this runs for each token.
    for kind, run in groupby(items, type):
        if kind is bytes:
            ready.extend(cast(Iterator[bytes], run))
        else:
            ready.extend(map(frames.encode, _packed(cast(Iterator[columns.Row], run))))
    return ready


def _packed(rows: Iterator[columns.Row]) -> Iterator[Deltas]:
    while some := list(islice(rows, _MOST_ROWS)):
        yield columns.pack(some)
