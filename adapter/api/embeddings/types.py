"""Request and response types of POST /v1/embeddings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from adapter.api.common.contract import Contract
from adapter.api.common.inputs import MAX_INPUTS, Input, split_inputs
from adapter.api.common.readers import Reader
from adapter.api.common.sampling import Count, ModelName
from adapter.api.common.validation import check_input
from adapter.errors import invalid


class EmbeddingEnvelope(Struct, frozen=True, kw_only=True):
    """A request for embeddings as far as the gateway itself needs it. The model decides about the rest: on the token
    lane it must be a valid EmbeddingRequest, on the chat lane the server judges it.

    Servers have more forms of inputs: llama-server objects and arrays that mix texts and token ids, vLLM `messages`.
    """

    model: ModelName
    input: str | dict[str, Any] | Annotated[list[Any], Meta(min_length=1)] | None = None

    @property
    def has_token_ids(self) -> bool:
        return isinstance(self.input, list) and any(isinstance(one, int | list) for one in self.input)

    @property
    def count(self) -> int:
        """Number of inputs: an array with token ids is one."""
        if not isinstance(self.input, list) or any(isinstance(one, int) for one in self.input):
            return 1
        return len(self.input)


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


def check_envelope(request: EmbeddingEnvelope) -> None:
    """Check the number of inputs. Raises BadRequest."""
    if request.count > MAX_INPUTS:
        raise invalid("input", f"expected at most {MAX_INPUTS} inputs, but got {request.count}")


def check_embedding(request: EmbeddingRequest) -> None:
    """Check that the inputs have one type and that no text is empty. Raises BadRequest."""
    check_input("input", request.input)
    if "" in request.inputs:
        place = "input" if isinstance(request.input, str) else f"input[{request.inputs.index('')}]"
        raise invalid(place, "expected a non-empty string")


read_envelope = Reader(EmbeddingEnvelope, check=check_envelope)
read_embedding = Reader(EmbeddingRequest, Contract(EmbeddingRequest.__struct_fields__), check_embedding)
