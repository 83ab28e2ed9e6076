"""Embeddings of texts: texts -> token ids -> vectors."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapter.api.embeddings.types import EmbeddingList, EmbeddingObject, EmbeddingRequest, EmbeddingUsage
from adapter.decode.events import Event
from adapter.decode.usage import NO_USAGE, Usage
from adapter.errors import invalid
from adapter.generation.base import TriedNodes, Work
from adapter.generation.model_registry import Model, ModelRegistry
from adapter.generation.plain_text import check_length, tokenize_text
from adapter.offload import offload_if_large
from subnet import SessionManager
from subnet.aio import Sink, gather_or_cancel
from subnet.client.prompt_scoring import PromptEvaluator
from subnet.node_info import ModelCard
from subnet.tensors import TokenIds

Vectors = NDArray[np.float32]

AT_ONCE = 32
"""Texts that one node is asked for: what is lost with it is asked of another."""


class Embeddings(Work):
    """The embeddings of `inputs` by `model`."""

    def __init__(self, request: EmbeddingRequest, model: Model, inputs: Sequence[TokenIds]) -> None:
        self._request = request
        self._model = model
        self._inputs = inputs
        self._vectors: Vectors | None = None
        self._reader: PromptEvaluator | None = None

    @property
    def card(self) -> ModelCard:
        return self._model.card

    @property
    def usage(self) -> Usage:
        count = sum(len(tokens) for tokens in self._inputs)
        return msgspec.structs.replace(NO_USAGE, prompt_tokens=count, total_tokens=count)

    @property
    def tried_nodes(self) -> Sequence[TriedNodes]:
        return () if self._reader is None or not self._reader.nodes else (self._reader,)

    async def run(
        self, sessions: SessionManager, emit: Sink[Event], *, may_queue: Callable[[], bool] = lambda: True
    ) -> None:
        """Raises what PromptEvaluator.embed does."""
        self._reader = sessions.prompt_evaluator(self.card.id)
        self._vectors = await _vectors(self._inputs, self._reader, sessions.capacity(self.card.id))

    async def list(self) -> EmbeddingList:
        """Returns the response, after `run`. Raises BadRequest for more dimensions than the model has."""
        assert self._vectors is not None
        objects = await offload_if_large(self._vectors.nbytes, partial(_objects, self._request, self._vectors))
        usage = EmbeddingUsage(prompt_tokens=self.usage.prompt_tokens, total_tokens=self.usage.total_tokens)
        return EmbeddingList(data=objects, model=self.card.id, usage=usage)


async def prepare_embeddings(
    request: EmbeddingRequest, models: ModelRegistry, *, name: str, size: int = 0
) -> Embeddings:
    """For a request of `size` bytes. Raises what `models.get` does, BadRequest and InvalidRequest for invalid inputs,
    and ContextLengthExceeded.
    """
    model = await models.get(name)
    return Embeddings(request, model, await offload_if_large(size, partial(_tokens, request, model)))


def shortened(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` of each vector, of length 1 again. Raises BadRequest for more than there are."""
    if dimensions is None:
        return vectors
    most = vectors.shape[1]
    if dimensions > most:
        raise invalid("dimensions", f"expected at most {most} for this model, but got {dimensions}")
    found = vectors[:, :dimensions].astype(np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _tokens(request: EmbeddingRequest, model: Model) -> list[TokenIds]:
    inputs, found = request.inputs, []
    for index, text in enumerate(inputs):
        place = f"input[{index}]" if len(inputs) > 1 else "input"
        tokens = tokenize_text(model, text, place)
        check_length(model, tokens, place)
        found.append(tokens)
    return found


async def _vectors(inputs: Sequence[TokenIds], reader: PromptEvaluator, capacity: int) -> Vectors:
    """A row for each of `inputs`; the nodes share them."""
    room = asyncio.Semaphore(capacity)
    found: dict[int, Vectors] = {}

    async def read(first: int) -> None:
        async with room:
            found[first] = await reader.embed(inputs[first : first + AT_ONCE])

    await gather_or_cancel([read(first) for first in range(0, len(inputs), AT_ONCE)])
    return np.concatenate([found[first] for first in sorted(found)])


def _objects(request: EmbeddingRequest, vectors: Vectors) -> list[EmbeddingObject]:
    shown = shortened(vectors, request.dimensions).astype("<f4")
    packed = request.encoding_format == "base64"
    return [
        EmbeddingObject(index=index, embedding=b64encode(row.tobytes()).decode() if packed else row.tolist())
        for index, row in enumerate(shown)
    ]
