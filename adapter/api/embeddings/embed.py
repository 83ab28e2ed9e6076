"""Embeddings: texts to token ids, and token ids to vectors."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapter.api.common.large_json import encode_in_blocks, long_list
from adapter.api.embeddings.types import EmbeddingList, EmbeddingObject, EmbeddingRequest, EmbeddingUsage
from adapter.api.embeddings.work import EmbeddingWork
from adapter.decode.events import Event
from adapter.decode.usage import NO_USAGE, Usage
from adapter.errors import invalid
from adapter.generation.model_registry import Model, ModelRegistry
from adapter.generation.plain_text import check_length, tokenize_text
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large
from subnet import RequestState, SessionManager
from subnet.aio import Sink, gather_or_cancel
from subnet.client.prompt_scoring import PromptEvaluator
from subnet.node_info import ModelCard
from subnet.tensors import TokenIds

Vectors = NDArray[np.float32]

# From this number of vectors on, encoding them takes so long that it is done in a thread.
_OFFLOAD_VECTORS = 64

BATCH_SIZE = 32
"""Number of texts in one request to a node. If the node fails, the whole batch is sent to another one."""


class Embeddings(EmbeddingWork):
    """Embeddings of the token ids `inputs` by `model`."""

    def __init__(self, request: EmbeddingRequest, model: Model, inputs: Sequence[TokenIds]) -> None:
        self._request = request
        self._model = model
        self._inputs = inputs
        self._vectors: Vectors | None = None

    @property
    def card(self) -> ModelCard:
        return self._model.card

    @property
    def usage(self) -> Usage:
        count = sum(len(tokens) for tokens in self._inputs)
        return msgspec.structs.replace(NO_USAGE, prompt_tokens=count, total_tokens=count)

    async def run(self, sessions: SessionManager, emit: Sink[Event], state: RequestState | None = None) -> None:
        """Compute the embeddings. Raises the errors of PromptEvaluator.embed."""
        self._evaluator = sessions.prompt_evaluator(self.card.id, state=state, identity=self._model.identity)
        self._vectors = await _embed(self._inputs, self._evaluator, sessions.capacity(self.card.id))

    async def response(self) -> Sequence[bytes]:
        """Return blocks of the JSON of the response. Raises BadRequest for more dimensions than the model has."""
        assert self._vectors is not None
        size = len(self._vectors) * OFFLOAD_THRESHOLD // _OFFLOAD_VECTORS
        return await offload_if_large(size, self._encode, self._vectors)

    def _encode(self, vectors: Vectors) -> list[bytes]:
        usage = EmbeddingUsage(prompt_tokens=self.usage.prompt_tokens, total_tokens=self.usage.total_tokens)
        objects = _objects(self._request, vectors)
        return encode_in_blocks(EmbeddingList(data=objects, model=self.card.id, usage=usage))


async def prepare_embeddings(
    request: EmbeddingRequest, models: ModelRegistry, *, name: str, size: int = 0
) -> Embeddings:
    """Tokenize the inputs of a request whose body has `size` bytes.

    Raises the errors of `models.get`, BadRequest and InvalidRequest for invalid inputs, and ContextLengthExceeded.
    """
    model = await models.get(name)
    return Embeddings(request, model, await model.offload(size, _tokens, request, model))


def truncate_dimensions(vectors: Vectors, dimensions: int | None) -> Vectors:
    """Return the first `dimensions` components of each vector, normalized to length 1; None: the vectors as they are.

    Raises BadRequest if the vectors have fewer.
    """
    if dimensions is None:
        return vectors
    maximum = vectors.shape[1]
    if dimensions > maximum:
        raise invalid("dimensions", f"expected at most {maximum} for this model, but got {dimensions}")
    truncated = vectors[:, :dimensions].astype(np.float64)
    lengths = np.linalg.norm(truncated, axis=1, keepdims=True)
    return (truncated / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _tokens(request: EmbeddingRequest, model: Model) -> list[TokenIds]:
    inputs, found = request.inputs, []
    for index, text in enumerate(inputs):
        place = f"input[{index}]" if len(inputs) > 1 else "input"
        tokens = tokenize_text(model, text, place)
        check_length(model, tokens, place)
        found.append(tokens)
    return found


async def _embed(inputs: Sequence[TokenIds], evaluator: PromptEvaluator, capacity: int) -> Vectors:
    """Return one vector per input, computed in batches on all nodes; at most `capacity` batches run at once."""
    slots = asyncio.Semaphore(capacity)
    found: dict[int, Vectors] = {}

    async def read(first: int) -> None:
        async with slots:
            found[first] = await evaluator.embed(inputs[first : first + BATCH_SIZE])

    await gather_or_cancel([read(first) for first in range(0, len(inputs), BATCH_SIZE)])
    return np.concatenate([found[first] for first in sorted(found)])


def _objects(request: EmbeddingRequest, vectors: Vectors) -> list[EmbeddingObject]:
    rows = truncate_dimensions(vectors, request.dimensions).astype("<f4")
    as_base64 = request.encoding_format == "base64"

    def objects(start: int, stop: int) -> list[EmbeddingObject]:
        return [
            EmbeddingObject(index=index, embedding=b64encode(row.tobytes()).decode() if as_base64 else row.tolist())
            for index, row in enumerate(rows[start:stop], start)
        ]

    return long_list(len(rows), objects)
