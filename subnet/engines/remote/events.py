"""What a server streams, decoded."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import msgspec

from subnet.errors import WireError
from subnet.http.client import HttpClient


class Piece(msgspec.Struct):
    """One event of a stream. Servers have begun it with status 200, so that an error comes as one of them."""

    error: Any = None
    object: str = ""


PieceT = TypeVar("PieceT", bound=Piece)

# As vLLM writes minus infinity, and OpenAI the logprob of what it did not count.
LEAST_LOGPROB = -9999.0


async def pieces(http: HttpClient, path: str, body: Any, kind: type[PieceT]) -> AsyncGenerator[PieceT, None]:
    """The pieces in which the server answers, up to "[DONE]" or the end of its stream. Closing the generator closes the
    connection, so that the server stops working. Raises as HttpClient does, and WireError for an event of another form.
    """
    async with http.events(path, body) as events:
        async for event in events:
            if event.comment:
                continue
            if event.data == "[DONE]":
                return
            yield _piece(http, event.data, kind)


def _piece(http: HttpClient, data: str, kind: type[PieceT]) -> PieceT:
    try:
        piece = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"{http.peer} sent an invalid event: {error}") from error
    if piece.error or piece.object == "error":
        raise http.to_error(msgspec.json.decode(data))
    return piece
