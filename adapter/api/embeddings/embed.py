"""The way of a request for embeddings: texts -> tensors -> vectors."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from adapter.api.embeddings.types import EmbeddingList, EmbeddingObject, EmbeddingRequest, EmbeddingUsage
from adapter.errors import BadRequest
from adapter.generation.models import Model, Models
from adapter.offload import aside
from adapter.prompt.plain_text import check_length, plain_tokens
from subnet import SessionManager
from subnet.aio import gather_or_cancel
from subnet.wire.tensors import TokenIds

Vectors = NDArray[np.float32]

AT_ONCE = 32
"""Texts that one node is asked for: what is lost with it is asked of another."""


async def embed(request: EmbeddingRequest, models: Models, sessions: SessionManager, *, size: int = 0) -> EmbeddingList:
    """For a request of `size` bytes. Raises what `models.get` and PromptEvaluator.embed do, BadRequest and InvalidRequest
    for inputs and dimensions that the model does not have, and ContextLengthExceeded.
    """
    model = await models.get(request.model)
    inputs = await aside(size, partial(_tokens, request, model))
    vectors = await _vectors(inputs, sessions, model.card.id)
    objects = await aside(vectors.nbytes, partial(_objects, request, vectors))
    count = sum(len(tokens) for tokens in inputs)
    usage = EmbeddingUsage(prompt_tokens=count, total_tokens=count)
    return EmbeddingList(data=objects, model=request.model, usage=usage)


def shortened(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` of each vector, of length 1 again. Raises BadRequest for more than there are."""
    if dimensions is None:
        return vectors
    most = vectors.shape[1]
    if dimensions > most:
        raise BadRequest(
            f"Invalid value for 'dimensions': expected at most {most} for this model, but got {dimensions}.",
            param="dimensions",
            code="invalid_value",
        )
    found = vectors[:, :dimensions].astype(np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _tokens(request: EmbeddingRequest, model: Model) -> list[TokenIds]:
    inputs, found = request.inputs, []
    for index, text in enumerate(inputs):
        place = f"input[{index}]" if len(inputs) > 1 else "input"
        tokens = plain_tokens(model, text, place)
        check_length(model, tokens, place)
        found.append(tokens)
    return found


async def _vectors(inputs: Sequence[TokenIds], sessions: SessionManager, model: str) -> Vectors:
    """A row for each of `inputs`; the nodes share them."""
    reader, room = sessions.prompt_evaluator(model), asyncio.Semaphore(sessions.capacity(model))
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
