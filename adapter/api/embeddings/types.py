"""POST /v1/embeddings: what it takes and gives."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from adapter.api.inputs import Input, each
from adapter.api.sampling import Count, ModelName


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """OpenAI's own clients ask for base64 unless told otherwise; float is what an absent `encoding_format` means."""

    model: ModelName
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """Each a text or its token ids."""
        return each(self.input)


class EmbeddingObject(Struct, frozen=True, kw_only=True):
    """`embedding` is numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage
