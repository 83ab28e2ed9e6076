"""Writer of streamed chat completions: OpenAI's chunks as server-sent events."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from adapter.api.chat.response import ChatCompletionChunk, ChunkChoice, ChunkDelta, FunctionDelta, ToolCallDelta
from adapter.api.common.event_stream import ChunkEncoder, nodes_comment
from adapter.api.common.extra import usage_with_extra, with_extra
from adapter.api.common.head import Head
from adapter.api.common.logprob_types import Logprobs
from adapter.decode.events import (
    CallArguments,
    CallExtra,
    CallStarted,
    ChoiceEvent,
    Event,
    Extra,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    ResponseExtra,
    TextDelta,
    Used,
)
from adapter.decode.usage import Usage
from subnet.aio import Sink

ReasoningField = Literal["reasoning_content", "reasoning", "both"]

_CallEvent = CallStarted | CallArguments | CallExtra
# A tuple, which is faster than a union.
_CALLS_WITH_EXTRA = (CallStarted, CallExtra)
_OwnEvent = TextDelta | ReasoningDelta | RefusalDelta | _CallEvent | Finished

_encode = msgspec.json.encode
_OPENING = b'data: {"id":'
_PLACEHOLDER = "\x00"


class ChunkWriter(ChunkEncoder):
    """Encoder of the chunks of one chat completion. Plain text is encoded as one JSON string between prepared bytes.

    `usage` returns the usage so far, for each chunk (None: not included). `prompt_token_ids` are added to the first
    chunk. If several nodes worked on the answer, their names are written as a comment, which clients of server-sent
    events ignore. `functions`: the request has the older `functions` instead of `tools`.
    """

    __slots__ = (
        "_first_chunk_fields",
        "_functions",
        "_head",
        "_id",
        "_include_usage",
        "_prefixes",
        "_reasoning",
        "_suffix",
        "_usage",
        "_without_role",
    )

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
        functions: bool = False,
    ) -> None:
        super().__init__(write)
        self._functions = functions
        self._head = msgspec.structs.asdict(head)
        self._include_usage = include_usage
        self._usage = usage
        self._reasoning = reasoning
        self._first_chunk_fields: dict[str, Any] = (
            {} if prompt_token_ids is None else {"prompt_token_ids": prompt_token_ids}
        )
        self._without_role = set(range(choices))
        # Only the id differs between the answers of one second. They share the other bytes around a text, so that
        # these stay in the processor's cache.
        self._id = _encode(head.id)
        self._prefixes: tuple[bytes, ...] = (b"",) * choices
        self._suffix = b""

    def emit(self, event: Event) -> None:
        if type(event) is not TextDelta or event.logprobs is not None or event.token_ids is not None:
            return super().emit(event)
        if not (prefix := self._prefixes[event.choice]):
            return super().emit(event)
        write = self._write
        return write(b"".join((_OPENING, self._id, prefix, _encode(event.text), self._suffix)))

    def encode(self, event: Event) -> bytes:
        if isinstance(event, Used):
            usage = self._chunk([], usage=usage_with_extra(event)) if self._include_usage else b""
            return usage + (nodes_comment(event) if len(event.nodes) > 1 else b"")
        if isinstance(event, ResponseExtra):
            self._add_to_next_chunk(event.fields)
            return b""
        role = self._role_chunk(event) if event.choice in self._without_role else b""
        if isinstance(event, Extra):
            return role + self._extra_chunk(event)
        if self._functions and isinstance(event, _CallEvent) and event.index:
            # The older form has room for one call.
            return role
        chunk = self._chunk_of([self._choice(event)], **self._usage_fields())
        if isinstance(event, _CALLS_WITH_EXTRA) and event.extra:
            return role + _server_sent_event(self._with_call_extra(chunk, event.extra))
        return role + _server_sent_event(chunk)

    def _extra_chunk(self, event: Extra) -> bytes:
        chunk = msgspec.to_builtins(self._chunk_of([ChunkChoice(index=event.choice, delta=ChunkDelta())]))
        chunk["choices"][0] |= event.fields
        chunk["choices"][0]["delta"] = event.message
        return _server_sent_event(chunk)

    def _with_call_extra(self, chunk: ChatCompletionChunk, extra: dict[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(chunk)
        delta = fields["choices"][0]["delta"]
        if self._functions:
            # The older form has a function only, without a call around it.
            delta["function_call"] = with_extra(delta["function_call"], extra.get("function", {}))
        else:
            delta["tool_calls"] = [with_extra(delta["tool_calls"][0], extra)]
        return fields

    def _role_chunk(self, event: ChoiceEvent) -> bytes:
        """Return the first chunk of a choice, with the role; `content` is null if it starts with a tool call."""
        self._without_role.discard(event.choice)
        self._prepare_fast_path(event.choice)
        content = None if isinstance(event, CallStarted) else ""
        delta = ChunkDelta(role="assistant", content=content, refusal=None)
        first, self._first_chunk_fields = self._first_chunk_fields, {}
        return self._chunk([ChunkChoice(index=event.choice, delta=delta)], **first, **self._usage_fields())

    def _choice(self, event: _OwnEvent) -> ChunkChoice:
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
            case CallStarted() | CallArguments() | CallExtra() | Finished() if self._functions:
                return _function_choice(event)
            case CallStarted():
                function = FunctionDelta(name=event.name, arguments="")
                delta = _tool_call_delta(
                    ToolCallDelta(index=event.index, id=event.id, type="function", function=function)
                )
            case CallArguments():
                delta = _tool_call_delta(ToolCallDelta(index=event.index, function=FunctionDelta(arguments=event.text)))
            case CallExtra():
                delta = _tool_call_delta(ToolCallDelta(index=event.index, function=FunctionDelta(arguments="")))
            case Finished():
                return ChunkChoice(index=event.choice, delta=ChunkDelta(), finish_reason=event.reason)
        return ChunkChoice(index=event.choice, delta=delta)

    def _usage_fields(self) -> dict[str, Any]:
        return {} if self._usage is None else {"usage": self._usage()}

    def _chunk(self, choices: list[ChunkChoice], **fields: Any) -> bytes:
        return _server_sent_event(self._chunk_of(choices, **fields))

    def _chunk_of(self, choices: list[ChunkChoice], **fields: Any) -> ChatCompletionChunk:
        fields = {"usage": None if self._include_usage else UNSET, **self._head, **fields}
        return ChatCompletionChunk(choices=choices, **fields)

    def _prepare_fast_path(self, index: int) -> None:
        """Prepare the bytes around the texts of a choice, unless each chunk has the usage."""
        if self._usage is None:
            head = self._head
            prefix, suffix = _split_text_chunk(
                head["created"], head["model"], head["system_fingerprint"], self._include_usage, index
            )
            self._prefixes = _intern((*self._prefixes[:index], prefix, *self._prefixes[index + 1 :]))
            self._suffix = suffix


@lru_cache(maxsize=1024)
def _intern(prefixes: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the same object for all equal arguments."""
    return prefixes


@lru_cache(maxsize=1024)
def _split_text_chunk(
    created: int, model: str, fingerprint: str, include_usage: bool, index: int
) -> tuple[bytes, bytes]:
    """Return the bytes of a chunk between its id and its text, and those after the text."""
    chunk = ChatCompletionChunk(
        id="",
        created=created,
        model=model,
        system_fingerprint=fingerprint,
        choices=[ChunkChoice(index=index, delta=ChunkDelta(content=_PLACEHOLDER))],
        usage=None if include_usage else UNSET,
    )
    prefix, suffix = _server_sent_event(chunk).removeprefix(_OPENING + _encode("")).rsplit(_encode(_PLACEHOLDER), 1)
    return prefix, suffix


def _function_choice(event: _CallEvent | Finished) -> ChunkChoice:
    """Return the choice for a request with the older `functions`, whose call has no id and its own finish reason."""
    match event:
        case CallStarted():
            function = FunctionDelta(name=event.name, arguments="")
        case CallArguments():
            function = FunctionDelta(arguments=event.text)
        case CallExtra():
            function = FunctionDelta(arguments="")
        case Finished():
            reason = "function_call" if event.reason == "tool_calls" else event.reason
            return ChunkChoice(index=event.choice, delta=ChunkDelta(), finish_reason=reason)
    return ChunkChoice(index=event.choice, delta=ChunkDelta(function_call=function))


def _server_sent_event(chunk: ChatCompletionChunk | dict[str, Any]) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"


def reasoning_fields(text: str, field: ReasoningField) -> dict[str, Any]:
    """Return the fields of a message or delta that hold the reasoning `text`."""
    names = ("reasoning_content", "reasoning") if field == "both" else (field,)
    return dict.fromkeys(names, text)


def _tool_call_delta(call: ToolCallDelta) -> ChunkDelta:
    return ChunkDelta(tool_calls=[call])
