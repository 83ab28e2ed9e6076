"""Events -> chunks of POST /v1/completions as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from adapter.api.common.event_stream import ChunkEncoder
from adapter.api.common.head import Head
from adapter.api.completions.batch import Opening
from adapter.api.completions.text_logprobs import text_logprobs
from adapter.api.completions.types import TextChoice, TextCompletion
from adapter.decode.events import Event, Finished, TextDelta, Used
from adapter.decode.usage import Usage
from subnet.aio import Sink

_encode = msgspec.json.encode
_MARK = "\x00"


class TextChunkWriter(ChunkEncoder):
    """Chunks of text completions. A plain text costs one JSON string between prepared bytes.

    `openings` has one for each prompt, which has so many `choices`. `usage` is asked for every chunk where each shall
    say what was used so far.
    """

    def __init__(
        self,
        head: Head,
        openings: Sequence[Opening],
        write: Sink[bytes],
        *,
        choices: int = 1,
        include_usage: bool = False,
        usage: Callable[[], Usage] | None = None,
    ) -> None:
        super().__init__(write)
        self._head = msgspec.structs.asdict(head)
        self._openings = [opening for opening in openings for _ in range(choices)]
        self._silent = {index for index, opening in enumerate(self._openings) if opening != Opening()}
        self._include_usage = include_usage
        self._usage = usage
        self._around = [self._around_text(index) for index in range(len(self._openings))]

    def encode(self, event: Event) -> bytes:
        """As ChunkWriter's, with what a choice shows of its prompt before its first."""
        if isinstance(event, Used):
            usage = self._chunk([], usage=event.usage) if self._include_usage else b""
            return usage + (f": nodes {', '.join(event.nodes)}\n\n".encode() if event.nodes else b"")
        if event.choice in self._silent:
            return self._opening(event.choice) + self.encode(event)
        if type(event) is TextDelta and event.logprobs is None and event.token_ids is None and self._usage is None:
            before, after = self._around[event.choice]
            return before + _encode(event.text) + after
        return self._chunk([self._choice(event)], **self._used_so_far())

    def _opening(self, index: int) -> bytes:
        self._silent.discard(index)
        opening = self._openings[index]
        ids = UNSET if opening.prompt_token_ids is None else opening.prompt_token_ids
        choice = TextChoice(
            index=index, text=opening.text, logprobs=opening.logprobs, finish_reason=None, prompt_token_ids=ids
        )
        return self._chunk([choice], **self._used_so_far())

    def _choice(self, event: Event) -> TextChoice:
        if isinstance(event, Finished):
            return TextChoice(index=event.choice, text="", finish_reason=text_reason(event))
        assert isinstance(event, TextDelta)
        offsets = [len(self._openings[event.choice].text) + offset for offset in event.offsets or ()]
        return TextChoice(
            index=event.choice,
            text=event.text,
            logprobs=None if event.logprobs is None else text_logprobs(event.logprobs, offsets),
            finish_reason=None,
            token_ids=UNSET if event.token_ids is None else event.token_ids,
        )

    def _used_so_far(self) -> dict[str, Any]:
        return {} if self._usage is None else {"usage": self._usage()}

    def _chunk(self, choices: list[TextChoice], **fields: Any) -> bytes:
        fields = {"usage": None if self._include_usage else UNSET, **self._head, **fields}
        return b"data: " + _encode(TextCompletion(choices=choices, **fields)) + b"\n\n"

    def _around_text(self, index: int) -> tuple[bytes, bytes]:
        chunk = self._chunk([TextChoice(index=index, text=_MARK, finish_reason=None)])
        before, after = chunk.rsplit(_encode(_MARK), 1)
        return before, after


def text_reason(event: Finished) -> Literal["stop", "length"]:
    """No text completion ends with a call."""
    return "length" if event.reason == "length" else "stop"
