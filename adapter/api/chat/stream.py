"""Events -> OpenAI's chunks as server-sent events."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from adapter.api.chat.response import ChatCompletionChunk, ChunkChoice, ChunkDelta, FunctionDelta, ToolCallDelta
from adapter.api.common.event_stream import ChunkEncoder
from adapter.api.common.head import Head
from adapter.api.common.logprob_types import Logprobs
from adapter.decode.events import (
    CallArguments,
    CallStarted,
    ChoiceEvent,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Used,
)
from adapter.decode.usage import Usage
from subnet.aio import Sink

ReasoningField = Literal["reasoning_content", "reasoning", "both"]

_encode = msgspec.json.encode
_OPENING = b'data: {"id":'
_MARK = "\x00"


class ChunkWriter(ChunkEncoder):
    """Chunks of chat completions. A plain text costs one JSON string between prepared bytes.

    `usage` is asked for every chunk where each shall say what was used so far; `prompt_token_ids` are told in the
    first chunk. Who looks finds the nodes of an answer that passed through several in a comment, which clients of
    server-sent events ignore.
    """

    __slots__ = ("_after", "_before", "_first", "_head", "_id", "_include_usage", "_reasoning", "_silent", "_usage")

    def __init__(
        self,
        head: Head,
        write: Sink[bytes],
        *,
        choices: int = 1,
        include_usage: bool = False,
        usage: Callable[[], Usage] | None = None,
        reasoning: ReasoningField = "reasoning_content",
        prompt_token_ids: list[int] | None = None,
    ) -> None:
        super().__init__(write)
        self._head = msgspec.structs.asdict(head)
        self._include_usage = include_usage
        self._usage = usage
        self._reasoning = reasoning
        self._first: dict[str, Any] = {} if prompt_token_ids is None else {"prompt_token_ids": prompt_token_ids}
        self._silent = set(range(choices))
        # Of the bytes around a text only the id is this answer's own: the others are shared by all answers of a second,
        # so that they are in the processor's cache.
        self._id = _encode(head.id)
        self._before: tuple[bytes, ...] = (b"",) * choices
        self._after = b""

    def emit(self, event: Event) -> None:
        if type(event) is not TextDelta or event.logprobs is not None or event.token_ids is not None:
            return super().emit(event)
        if not (before := self._before[event.choice]):
            return super().emit(event)
        write = self._write
        return write(b"".join((_OPENING, self._id, before, _encode(event.text), self._after)))

    def encode(self, event: Event) -> bytes:
        if isinstance(event, Used):
            usage = self._chunk([], usage=event.usage) if self._include_usage else b""
            return usage + (f": nodes {', '.join(event.nodes)}\n\n".encode() if len(event.nodes) > 1 else b"")
        role = self._role(event) if event.choice in self._silent else b""
        return role + self._chunk([self._choice(event)], **self._used_so_far())

    def _role(self, event: ChoiceEvent) -> bytes:
        """Once for each choice, before anything of it. A choice that begins with a call has null for its content."""
        self._silent.discard(event.choice)
        self._prepare(event.choice)
        content = None if isinstance(event, CallStarted) else ""
        delta = ChunkDelta(role="assistant", content=content, refusal=None)
        first, self._first = self._first, {}
        return self._chunk([ChunkChoice(index=event.choice, delta=delta)], **first, **self._used_so_far())

    def _choice(self, event: ChoiceEvent) -> ChunkChoice:
        match event:
            case TextDelta():
                logprobs = None if event.logprobs is None else Logprobs(content=event.logprobs)
                ids = UNSET if event.token_ids is None else event.token_ids
                return ChunkChoice(
                    index=event.choice, delta=ChunkDelta(content=event.text), logprobs=logprobs, token_ids=ids
                )
            case ReasoningDelta():
                delta = ChunkDelta(**reasoning_fields(event.text, self._reasoning))
            case RefusalDelta():
                delta = ChunkDelta(refusal=event.text)
            case CallStarted():
                function = FunctionDelta(name=event.name, arguments="")
                delta = _call(ToolCallDelta(index=event.index, id=event.id, type="function", function=function))
            case CallArguments():
                delta = _call(ToolCallDelta(index=event.index, function=FunctionDelta(arguments=event.text)))
            case Finished():
                return ChunkChoice(index=event.choice, delta=ChunkDelta(), finish_reason=event.reason)
        return ChunkChoice(index=event.choice, delta=delta)

    def _used_so_far(self) -> dict[str, Any]:
        return {} if self._usage is None else {"usage": self._usage()}

    def _chunk(self, choices: list[ChunkChoice], **fields: Any) -> bytes:
        fields = {"usage": None if self._include_usage else UNSET, **self._head, **fields}
        return _event(ChatCompletionChunk(choices=choices, **fields))

    def _prepare(self, index: int) -> None:
        """From now on a text of this choice goes the short way, unless more is to be told with it."""
        if self._usage is None:
            head = self._head
            around = _around(head["created"], head["model"], head["system_fingerprint"], self._include_usage, index)
            self._before = _shared((*self._before[:index], around[0], *self._before[index + 1 :]))
            self._after = around[1]


@lru_cache(maxsize=1024)
def _shared(before: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The same one for all who have equal ones."""
    return before


@lru_cache(maxsize=1024)
def _around(created: int, model: str, fingerprint: str, include_usage: bool, index: int) -> tuple[bytes, bytes]:
    """What stands in a chunk between its id and its text, and what after that."""
    chunk = ChatCompletionChunk(
        id="",
        created=created,
        model=model,
        system_fingerprint=fingerprint,
        choices=[ChunkChoice(index=index, delta=ChunkDelta(content=_MARK))],
        usage=None if include_usage else UNSET,
    )
    before, after = _event(chunk).removeprefix(_OPENING + _encode("")).rsplit(_encode(_MARK), 1)
    return before, after


def _event(chunk: ChatCompletionChunk) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"


def reasoning_fields(text: str, field: ReasoningField) -> dict[str, Any]:
    """Reasoning under the name, or the names, that clients look for it."""
    names = ("reasoning_content", "reasoning") if field == "both" else (field,)
    return dict.fromkeys(names, text)


def _call(call: ToolCallDelta) -> ChunkDelta:
    return ChunkDelta(tool_calls=[call])
