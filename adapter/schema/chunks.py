"""What a stream is made of. chunks.py writes most of them from prepared bytes; these say what the bytes mean."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from adapter.schema.responses import Usage


class ChunkDelta(Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: ChunkDelta
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletionChunk(Struct, frozen=True, kw_only=True):
    """`usage` is absent where it was not asked for, null on all chunks but the last where it was."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
