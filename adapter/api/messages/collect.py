"""Collector of the events of a message that is not streamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adapter.api.common.head import Head
from adapter.api.messages.blocks import SIGNATURE, Blocks, parsed_input
from adapter.api.messages.response import (
    BlockDelta,
    BlockStart,
    ContentBlock,
    InputPiece,
    Message,
    MessageUsage,
    SignaturePiece,
    StopReason,
    Text,
    TextPiece,
    Thinking,
    ThinkingPiece,
)
from adapter.decode.events import Event, Used


class Collector:
    """Builds a Message from the events of one answer, by the same blocks as those of a stream."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self.reset()

    def reset(self) -> Callable[[Event], None]:
        """Discard all events received so far, and return `receive`."""
        self._blocks = Blocks(self._stops)
        self._content: list[tuple[ContentBlock, list[str]]] = []
        self._used: Used | None = None
        return self.receive

    def receive(self, event: Event) -> None:
        if isinstance(event, Used):
            self._used = event
            return
        for change in self._blocks.receive(event):
            if isinstance(change, BlockStart):
                self._content.append((change.content_block, []))
            elif isinstance(change, BlockDelta) and (text := _text(change)):
                self._content[-1][1].append(text)

    def build(self, head: Head, limit_reason: StopReason) -> Message:
        """Return the message; to be called after the last event was received. `limit_reason` is as for Blocks."""
        assert self._used is not None
        stop = self._blocks.stop(limit_reason)
        return Message(
            id=head.id,
            model=head.model,
            content=[_built(block, "".join(texts)) for block, texts in self._content],
            stop_reason=stop.stop_reason,
            stop_sequence=stop.stop_sequence,
            usage=MessageUsage.of(self._used.usage),
        )


def _text(change: BlockDelta) -> str:
    match change.delta:
        case TextPiece(text=text) | ThinkingPiece(thinking=text) | InputPiece(partial_json=text):
            return text
        case SignaturePiece():
            return ""


def _built(block: ContentBlock, text: str) -> ContentBlock:
    match block:
        case Text():
            return Text(text)
        case Thinking():
            return Thinking(text, SIGNATURE)
    return type(block)(block.id, block.name, parsed_input(text))
