"""Embeddings from one server."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from subnet.chat import EmbeddingsRequest, EmbeddingsResponse
from subnet.errors import EndpointMissing, WireError
from subnet.http.client import HttpClient
from subnet.http.error_map import NotFound
from subnet.http.lenient_json import without_halves
from subnet.protocols.openai.usage_reader import read_prompt_tokens

# The range of float32; infinities and NaN are outside of it.
_Number = Annotated[float, Meta(ge=-3.4028236e38, le=3.4028236e38)]
_Base64 = Annotated[str, Meta(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$")]


class _Embedding(Struct):
    index: Annotated[int, Meta(ge=0)]
    embedding: Annotated[list[_Number], Meta(min_length=1)] | Annotated[_Base64, Meta(min_length=1)]


async def post_embeddings(http: HttpClient, request: EmbeddingsRequest, model: str) -> EmbeddingsResponse:
    """Request embeddings; `model` is the server's name of the model. Returns and raises the same as
    Protocol.rpc_embeddings.
    """
    read = partial(_read, http.peer, request)
    try:
        return await http.post_and_read("/v1/embeddings", {**request.body, "model": model}, read)
    except NotFound as error:
        raise EndpointMissing(f"/v1/embeddings: {error.message}") from error


def _read(peer: str, request: EmbeddingsRequest, body: Any) -> EmbeddingsResponse:
    """Check a response and encode it for the client. Raises WireError for an invalid one.

    It is encoded here, where what cannot be encoded is a fault of this server, so that another one is asked.
    """
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        raise WireError(f"{peer} sent invalid embeddings: expected an object with a list of them")
    try:
        # One by one, so that in a thread the event loop can run in between: msgspec holds the GIL.
        items = [_read_item(item) for item in data]
        _, encoded = _encode({**body, "model": request.model, "data": [item for _, item in items]})
    except msgspec.ValidationError as error:
        raise WireError(f"{peer} sent invalid embeddings: {error}") from error
    except RecursionError as error:
        raise WireError(f"{peer} sent embeddings that are nested too deeply") from error
    if sorted(index for index, _ in items) != list(range(request.count)):
        expected = f"expected one for each of {request.count} inputs, got {len(items)}"
        raise WireError(f"{peer} sent invalid embeddings: {expected}")
    return EmbeddingsResponse(body=encoded, prompt_tokens=read_prompt_tokens(body.get("usage")))


def _read_item(item: Any) -> tuple[int, msgspec.Raw]:
    """Return the index of an embedding and its JSON. Raises ValidationError."""
    item, encoded = _encode(item)
    return msgspec.convert(item, _Embedding).index, msgspec.Raw(encoded)


def _encode(value: Any) -> tuple[Any, bytes]:
    """Return a JSON value without halves of surrogate pairs, which few have, and its JSON."""
    try:
        return value, msgspec.json.encode(value)
    except UnicodeEncodeError:
        value = without_halves(value)
        return value, msgspec.json.encode(value)
