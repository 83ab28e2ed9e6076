"""Writer of streamed messages: Anthropic's events as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import msgspec

from adapter.api.common.event_stream import ChunkEncoder, nodes_comment
from adapter.api.common.head import Head
from adapter.api.messages.blocks import Blocks
from adapter.api.messages.response import (
    BlockDelta,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageUsage,
    StopReason,
    StreamEvent,
    TextPiece,
)
from adapter.decode.events import Event, TextDelta, Used
from adapter.decode.usage import Usage
from subnet.aio import Sink

_encode = msgspec.json.encode
_PLACEHOLDER = "\x00"


class MessageWriter(ChunkEncoder):
    """Encoder of the events of one message. Plain text is encoded as one JSON string between prepared bytes.

    `usage` returns the usage so far, for the first event, and `limit_reason` that of Blocks, for the last. `stops` are
    as for Blocks.
    """

    __slots__ = ("_blocks", "_head", "_limit_reason", "_prefix", "_suffix", "_usage")

    def __init__(
        self,
        head: Head,
        write: Sink[bytes],
        usage: Callable[[], Usage],
        *,
        stops: Sequence[str] = (),
        limit_reason: Callable[[], StopReason] = lambda: "max_tokens",
    ) -> None:
        super().__init__(write)
        self._head = head
        self._usage: Callable[[], Usage] | None = usage
        self._blocks = Blocks(stops)
        self._limit_reason = limit_reason
        # Around the next piece of text while a block of text is open; else empty.
        self._prefix = self._suffix = b""

    def emit(self, event: Event) -> None:
        if type(event) is TextDelta and (prefix := self._prefix):
            return self._write(b"".join((prefix, _encode(event.text), self._suffix)))
        return super().emit(event)

    def encode(self, event: Event) -> bytes:
        start = b"" if self._usage is None else self._message_start(self._usage)
        if isinstance(event, Used):
            end = (MessageDelta(self._blocks.stop(self._limit_reason()), MessageUsage.of(event.usage)), MessageStop())
            return start + _encoded(end) + (nodes_comment(event) if len(event.nodes) > 1 else b"")
        data = start + _encoded(self._blocks.receive(event))
        index = self._blocks.open_text
        self._prefix, self._suffix = (b"", b"") if index is None else _around_text(index)
        return data

    def _message_start(self, usage: Callable[[], Usage]) -> bytes:
        # It may refer to what refers to this object.
        self._usage = None
        counts = MessageUsage.of(usage(), is_final=False)
        return _encoded([MessageStart(Message(id=self._head.id, model=self._head.model, content=[], usage=counts))])


def _encoded(events: Iterable[StreamEvent]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (str(event.__struct_config__.tag).encode(), _encode(event)) for event in events
    )


@lru_cache(maxsize=64)
def _around_text(index: int) -> tuple[bytes, bytes]:
    """Return the bytes before and after the JSON string of a piece of text of the block `index`."""
    data = _encoded([BlockDelta(index, TextPiece(_PLACEHOLDER))])
    prefix, suffix = data.split(_encode(_PLACEHOLDER))
    return prefix, suffix
