"""Embeddings from one server."""

from __future__ import annotations

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


class _Embeddings(Struct):
    data: list[_Embedding]


async def post_embeddings(http: HttpClient, request: EmbeddingsRequest, model: str) -> EmbeddingsResponse:
    """Request embeddings; `model` is the server's name of the model. Returns and raises the same as
    Protocol.rpc_embeddings.
    """
    try:
        body = await http.post("/v1/embeddings", {**request.body, "model": model})
    except NotFound as error:
        raise EndpointMissing(f"/v1/embeddings: {error.message}") from error
    return _read(http.peer, body, request)


def _read(peer: str, body: Any, request: EmbeddingsRequest) -> EmbeddingsResponse:
    """Check a response and encode it for the client. Raises WireError for an invalid one."""
    if not isinstance(body, dict):
        raise WireError(f"{peer} sent invalid embeddings: expected an object")
    try:
        # Here, what cannot be encoded is a fault of this server, and another one is asked.
        body, encoded = _encode(body | {"model": request.model})
    except RecursionError as error:
        raise WireError(f"{peer} sent embeddings that are nested too deeply") from error
    _check(peer, body, request.count)
    return EmbeddingsResponse(body=encoded, prompt_tokens=read_prompt_tokens(body.get("usage")))


def _encode(value: Any) -> tuple[Any, bytes]:
    """Return a JSON value without halves of surrogate pairs, which few have, and its JSON."""
    try:
        return value, msgspec.json.encode(value)
    except UnicodeEncodeError:
        value = without_halves(value)
        return value, msgspec.json.encode(value)


def _check(peer: str, body: dict[str, Any], count: int) -> None:
    """Raise WireError unless there is one embedding for each of `count` inputs."""
    try:
        data = msgspec.convert(body, _Embeddings).data
    except msgspec.ValidationError as error:
        raise WireError(f"{peer} sent invalid embeddings: {error}") from error
    if sorted(one.index for one in data) != list(range(count)):
        raise WireError(f"{peer} sent invalid embeddings: expected one for each of {count} inputs, got {len(data)}")
