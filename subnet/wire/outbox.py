"""Send queue of a connection: callers post without waiting, and one task writes."""

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

MAX_QUEUED = 2 * frames.MAX_FRAME
"""Size of the messages in an outbox from which on it is full, in bytes: a peer that reads has far fewer waiting."""
_MAX_QUEUED_ITEMS = 1 << 18


class Outbox:
    """Queue of messages and deltas, sent in the order posted; consecutive deltas are sent as one frame.

    So an engine step costs one frame regardless of the number of streams, and a slow peer gets fewer, larger frames
    instead of a longer queue.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._size = 0
        self._not_empty = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def full(self) -> bool:
        """True if so much waits that the peer does not read: nothing more should be queued for it."""
        return self._size > MAX_QUEUED or len(self._items) > _MAX_QUEUED_ITEMS

    def post(self, message: Message) -> None:
        """Queue a message. Raises WireError, before anything is queued, if it cannot be encoded."""
        frame = frames.encode(message)
        self._set_not_empty()
        self._size += len(frame)
        self._items.append(frame)

    def post_delta(self, call: int, delta: Delta) -> None:
        """Queue a delta of the call with number `call`."""
        if not self._items:
            self._set_not_empty()
        self._items.append((call, delta))

    async def drain(self) -> None:
        """Wait until everything posted is written."""
        await self._empty.wait()

    async def run(self, send: Send) -> None:
        """Write with `send` until cancelled, or until `send` raises."""
        while True:
            await self._not_empty.wait()
            self._not_empty.clear()
            items, self._items, size = self._items, [], self._size
            for frame in to_frames(items):
                await send(frame)
            self._size -= size
            if not self._items:
                self._empty.set()

    def _set_not_empty(self) -> None:
        self._empty.clear()
        self._not_empty.set()


def to_frames(items: list[Item]) -> list[bytes]:
    """Convert `items` to frames: encoded messages stay as they are, and each run of deltas becomes one frame."""
    result: list[bytes] = []
    # This runs for each token: `type` as the key function is called without a Python frame.
    for item_type, run in groupby(items, type):
        if item_type is bytes:
            result.extend(cast(Iterator[bytes], run))
        else:
            result.extend(map(frames.encode, _pack_rows(cast(Iterator[columns.Row], run))))
    return result


def _pack_rows(rows: Iterator[columns.Row]) -> Iterator[Deltas]:
    while batch := list(islice(rows, columns.MAX_ROWS)):
        yield from columns.pack_frames(batch)
