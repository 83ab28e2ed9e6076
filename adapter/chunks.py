"""Events -> OpenAI's chunks as server-sent events, and whole answers."""

from __future__ import annotations

import secrets
from time import time
from typing import Any

import msgspec
from msgspec import UNSET

from adapter.events import Event, Finished, TextDelta, Used
from adapter.schema.chunks import ChatCompletionChunk, ChunkChoice, ChunkDelta
from adapter.schema.responses import AnswerMessage, ChatCompletion, Choice

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode
_MARK = "\x00"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same in every chunk of an answer."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, model: str, fingerprint: str) -> Head:
        return cls(
            id=f"chatcmpl-{secrets.token_hex(14)}", created=int(time()), model=model, system_fingerprint=fingerprint
        )


class ChunkWriter:
    """Events of one answer -> bytes. A text costs one JSON string between prepared bytes."""

    def __init__(self, head: Head, *, choices: int = 1, include_usage: bool = False) -> None:
        self._head = msgspec.structs.asdict(head)
        self._choices = choices
        self._include_usage = include_usage
        self._around = [self._around_text(index) for index in range(choices)]

    def begin(self) -> bytes:
        """Everything before the first event: one role per choice."""
        delta = ChunkDelta(role="assistant", content="", refusal=None)
        return b"".join(self._chunk([ChunkChoice(index=index, delta=delta)]) for index in range(self._choices))

    def encode(self, event: Event) -> bytes:
        """Empty for the usage that nobody asked for. Who looks finds the nodes of an answer that passed through
        several in a comment, which clients of server-sent events ignore.
        """
        if type(event) is TextDelta:
            before, after = self._around[event.choice]
            return before + _encode(event.text) + after
        if isinstance(event, Finished):
            return self._chunk([ChunkChoice(index=event.choice, delta=ChunkDelta(), finish_reason=event.reason)])
        assert isinstance(event, Used)
        usage = self._chunk([], usage=event.usage) if self._include_usage else b""
        return usage + (f": nodes {', '.join(event.nodes)}\n\n".encode() if len(event.nodes) > 1 else b"")

    def _chunk(self, choices: list[ChunkChoice], **fields: Any) -> bytes:
        fields = {"usage": None if self._include_usage else UNSET, **self._head, **fields}
        return b"data: " + _encode(ChatCompletionChunk(choices=choices, **fields)) + b"\n\n"

    def _around_text(self, index: int) -> tuple[bytes, bytes]:
        chunk = self._chunk([ChunkChoice(index=index, delta=ChunkDelta(content=_MARK))])
        before, after = chunk.rsplit(_encode(_MARK), 1)
        return before, after


class Collector:
    """Events of one answer -> the whole of it."""

    def __init__(self, head: Head, *, choices: int = 1) -> None:
        self._head = head
        self._texts: list[list[str]] = [[] for _ in range(choices)]
        self._reasons: dict[int, Finished] = {}
        self._used: Used | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, TextDelta):
            self._texts[event.choice].append(event.text)
        elif isinstance(event, Finished):
            self._reasons[event.choice] = event
        else:
            self._used = event

    def whole(self) -> ChatCompletion:
        """Once the last event was taken."""
        assert self._used is not None
        answers = [
            Choice(index=index, message=AnswerMessage(content="".join(text)), finish_reason=self._reasons[index].reason)
            for index, text in enumerate(self._texts)
        ]
        return ChatCompletion(choices=answers, usage=self._used.usage, **msgspec.structs.asdict(self._head))
