"""Decoding of the events that a server streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import msgspec

from subnet.errors import WireError
from subnet.http.client import HttpClient


class StreamEvent(msgspec.Struct):
    """Event of a stream. An error arrives as an event, because servers have already sent status 200."""

    error: Any = None
    object: str = ""


EventT = TypeVar("EventT", bound=StreamEvent)


async def stream_events(
    http: HttpClient, path: str, body: Any, event_type: type[EventT], keep_alive: Callable[[], None]
) -> AsyncGenerator[EventT, None]:
    """Post `body` and yield the decoded events of the response, up to "[DONE]" or the end of the stream.

    `keep_alive` is called for each comment, which servers send while a request waits. Closing the generator closes the
    connection, so that the server stops generating. Raises the errors of HttpClient, and WireError for an event that
    does not match `event_type`.
    """
    async with http.events(path, body) as events:
        async for event in events:
            if event.comment:
                keep_alive()
                continue
            if event.data == "[DONE]":
                return
            yield _decode(http, event.data, event_type)


def _decode(http: HttpClient, data: str, event_type: type[EventT]) -> EventT:
    try:
        event = msgspec.json.decode(data, type=event_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"{http.peer} sent an invalid event: {error}") from error
    if event.error or event.object == "error":
        raise http.to_error(msgspec.json.decode(data))
    return event
