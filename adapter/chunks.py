"""Events -> OpenAI's chunks as server-sent events."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import time
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from adapter.events import (
    CallArguments,
    CallBegun,
    ChoiceEvent,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Used,
)
from adapter.schema.chunks import ChatCompletionChunk, ChunkChoice, ChunkDelta, FunctionDelta, ToolCallDelta
from adapter.schema.logprobs import Logprobs
from adapter.schema.responses import Usage

DONE = b"data: [DONE]\n\n"

ReasoningField = Literal["reasoning_content", "reasoning", "both"]

_encode = msgspec.json.encode
_MARK = "\x00"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same in every chunk of an answer."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, model: str, fingerprint: str, prefix: str = "chatcmpl-") -> Head:
        return cls(
            id=f"{prefix}{secrets.token_hex(14)}", created=int(time()), model=model, system_fingerprint=fingerprint
        )


class ChunkWriter:
    """Events of one answer -> bytes. A plain text costs one JSON string between prepared bytes.

    `usage` is asked for every chunk where each shall say what was used so far; `prompt_token_ids` are told in the
    first chunk.
    """

    __slots__ = ("_around", "_first", "_head", "_include_usage", "_reasoning", "_silent", "_usage")

    def __init__(
        self,
        head: Head,
        *,
        choices: int = 1,
        include_usage: bool = False,
        usage: Callable[[], Usage] | None = None,
        reasoning: ReasoningField = "reasoning_content",
        prompt_token_ids: list[int] | None = None,
    ) -> None:
        self._head = msgspec.structs.asdict(head)
        self._include_usage = include_usage
        self._usage = usage
        self._reasoning = reasoning
        self._first: dict[str, Any] = {} if prompt_token_ids is None else {"prompt_token_ids": prompt_token_ids}
        self._silent = set(range(choices))
        self._around = [self._around_text(index) for index in range(choices)]

    def encode(self, event: Event) -> bytes:
        """Empty for the usage that nobody asked for. Who looks finds the nodes of an answer that passed through
        several in a comment, which clients of server-sent events ignore.
        """
        if self._silent and not isinstance(event, Used) and event.choice in self._silent:
            return self._role(event) + self.encode(event)
        if type(event) is TextDelta and event.logprobs is None and event.token_ids is None and self._usage is None:
            before, after = self._around[event.choice]
            return before + _encode(event.text) + after
        if isinstance(event, Used):
            usage = self._chunk([], usage=event.usage) if self._include_usage else b""
            return usage + (f": nodes {', '.join(event.nodes)}\n\n".encode() if len(event.nodes) > 1 else b"")
        return self._chunk([self._choice(event)], **self._used_so_far())

    def _role(self, event: ChoiceEvent) -> bytes:
        """Once for each choice, before anything of it. A choice that begins with a call has null for its content."""
        self._silent.discard(event.choice)
        content = None if isinstance(event, CallBegun) else ""
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
            case CallBegun():
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
        return b"data: " + _encode(ChatCompletionChunk(choices=choices, **fields)) + b"\n\n"

    def _around_text(self, index: int) -> tuple[bytes, bytes]:
        chunk = self._chunk([ChunkChoice(index=index, delta=ChunkDelta(content=_MARK))])
        before, after = chunk.rsplit(_encode(_MARK), 1)
        return before, after


def reasoning_fields(text: str, field: ReasoningField) -> dict[str, Any]:
    """Reasoning under the name, or the names, that clients look for it."""
    names = ("reasoning_content", "reasoning") if field == "both" else (field,)
    return dict.fromkeys(names, text)


def _call(call: ToolCallDelta) -> ChunkDelta:
    return ChunkDelta(tool_calls=[call])
