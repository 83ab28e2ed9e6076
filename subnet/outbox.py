"""The sending half of a connection: callers post without waiting, one task writes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import groupby

from subnet import columns, frames
from subnet.generation import Delta
from subnet.messages import Message

Send = Callable[[bytes], Awaitable[None]]
Item = Message | columns.Row


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
        self._put(message)

    def post_delta(self, call: int, delta: Delta) -> None:
        self._put((call, delta))

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

    def _put(self, item: Item) -> None:
        self._items.append(item)
        self._empty.clear()
        self._filled.set()


def to_frames(items: list[Item]) -> list[bytes]:
    """The frames that carry `items`: one for each message, one for each run of deltas between messages."""
    encoded: list[bytes] = []
    for is_delta, run in groupby(items, key=lambda item: isinstance(item, tuple)):
        if is_delta:
            encoded.append(frames.encode(columns.pack([item for item in run if isinstance(item, tuple)])))
        else:
            encoded.extend(frames.encode(item) for item in run if not isinstance(item, tuple))
    return encoded
