"""Request and response types of POST /v1/embeddings."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from adapter.api.common.contract import Contract
from adapter.api.common.inputs import Input, split_inputs
from adapter.api.common.readers import Reader
from adapter.api.common.sampling import Count, ModelName
from adapter.api.common.validation import check_input
from adapter.errors import invalid


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """A request for embeddings. The default of `encoding_format` is float; OpenAI's own clients request base64 by
    default.
    """

    model: ModelName
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """The inputs, each a text or a list of token ids."""
        return split_inputs(self.input)


class EmbeddingObject(Struct, frozen=True, kw_only=True):
    """One embedding: a list of numbers, or little-endian float32 values in base64."""

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


def check_embedding(request: EmbeddingRequest) -> None:
    """Check that the inputs have one type and that no text is empty. Raises BadRequest."""
    check_input("input", request.input)
    if "" in request.inputs:
        place = "input" if isinstance(request.input, str) else f"input[{request.inputs.index('')}]"
        raise invalid(place, "expected a non-empty string")


read_embedding = Reader(EmbeddingRequest, Contract(EmbeddingRequest.__struct_fields__), check_embedding)
