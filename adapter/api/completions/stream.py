"""Writer of streamed text completions as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from adapter.api.common.event_stream import ChunkEncoder, nodes_comment
from adapter.api.common.extra import usage_with_extra
from adapter.api.common.head import Head
from adapter.api.completions.batch import ChoicePrefix
from adapter.api.completions.text_logprobs import text_logprobs
from adapter.api.completions.types import TextChoice, TextCompletion, TextFinishReason
from adapter.decode.events import Event, Extra, Finished, ResponseExtra, TextDelta, Used
from adapter.decode.usage import Usage
from subnet.aio import Sink

_encode = msgspec.json.encode
_PLACEHOLDER = "\x00"


class TextChunkWriter(ChunkEncoder):
    """Encoder of the chunks of one text completion. Plain text is encoded as one JSON string between prepared bytes.

    `prefixes` has one entry per prompt; each prompt has `choices` choices. `usage` returns the usage so far, for each
    chunk (None: not included).
    """

    def __init__(
        self,
        head: Head,
        prefixes: Sequence[ChoicePrefix],
        write: Sink[bytes],
        *,
        choices: int = 1,
        include_usage: bool = False,
        usage: Callable[[], Usage] | None = None,
    ) -> None:
        super().__init__(write)
        self._head = msgspec.structs.asdict(head)
        self._prefixes = [prefix for prefix in prefixes for _ in range(choices)]
        self._without_prefix = {index for index, prefix in enumerate(self._prefixes) if not prefix.is_empty}
        self._include_usage = include_usage
        self._usage = usage
        self._affixes = [self._split_text_chunk(index) for index in range(len(self._prefixes))]

    def encode(self, event: Event) -> bytes:
        """Return the chunk for `event`, after the chunk with the prefix if it is the first of its choice."""
        if isinstance(event, Used):
            usage = self._chunk([], usage=usage_with_extra(event)) if self._include_usage else b""
            return usage + (nodes_comment(event) if event.nodes else b"")
        if isinstance(event, ResponseExtra):
            self._add_to_next_chunk(event.fields)
            return b""
        if event.choice in self._without_prefix:
            return self._prefix_chunk(event.choice) + self.encode(event)
        if type(event) is TextDelta and event.logprobs is None and event.token_ids is None and self._usage is None:
            before, after = self._affixes[event.choice]
            return before + _encode(event.text) + after
        if isinstance(event, Extra):
            return self._extra_chunk(event)
        return self._chunk([self._choice(event)], **self._usage_fields())

    def _extra_chunk(self, event: Extra) -> bytes:
        chunk = msgspec.to_builtins(self._chunk_of([TextChoice(index=event.choice, text="", finish_reason=None)]))
        chunk["choices"][0] |= event.fields
        return b"data: " + _encode(chunk) + b"\n\n"

    def _prefix_chunk(self, index: int) -> bytes:
        self._without_prefix.discard(index)
        prefix = self._prefixes[index]
        ids = UNSET if prefix.prompt_token_ids is None else prefix.prompt_token_ids.tolist()
        choice = TextChoice(
            index=index, text=prefix.text, logprobs=prefix.logprobs, finish_reason=None, prompt_token_ids=ids
        )
        return self._chunk([choice], **self._usage_fields())

    def _choice(self, event: Event) -> TextChoice:
        if isinstance(event, Finished):
            return TextChoice(index=event.choice, text="", finish_reason=text_reason(event))
        assert isinstance(event, TextDelta)
        offsets = [len(self._prefixes[event.choice].text) + offset for offset in event.offsets or ()]
        return TextChoice(
            index=event.choice,
            text=event.text,
            logprobs=None if event.logprobs is None else text_logprobs(event.logprobs, offsets),
            finish_reason=None,
            token_ids=UNSET if event.token_ids is None else event.token_ids,
        )

    def _usage_fields(self) -> dict[str, Any]:
        return {} if self._usage is None else {"usage": self._usage()}

    def _chunk(self, choices: list[TextChoice], **fields: Any) -> bytes:
        return b"data: " + _encode(self._chunk_of(choices, **fields)) + b"\n\n"

    def _chunk_of(self, choices: list[TextChoice], **fields: Any) -> TextCompletion:
        fields = {"usage": None if self._include_usage else UNSET, **self._head, **fields}
        return TextCompletion(choices=choices, **fields)

    def _split_text_chunk(self, index: int) -> tuple[bytes, bytes]:
        chunk = self._chunk([TextChoice(index=index, text=_PLACEHOLDER, finish_reason=None)])
        before, after = chunk.rsplit(_encode(_PLACEHOLDER), 1)
        return before, after


def text_reason(event: Finished) -> TextFinishReason:
    """Return the finish reason of a text completion, which never ends with a tool call."""
    return "stop" if event.reason == "tool_calls" else event.reason
