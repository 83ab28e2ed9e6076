"""When a keep-alive is written: never to a client that does not read, and never without an interval."""

from __future__ import annotations

import asyncio

from adapter.server.asgi import Receive, Scope, Send
from adapter.server.keep_alive import KeepAlive
from adapter.server.response_writer import ResponseWriter, writer_of
from tests.adapter.server.test_response_writer import response_to

START = {"type": "http.response.start", "status": 200, "headers": []}


async def test_what_counts_as_silence() -> None:
    """Parts and keep-alives end a silence, whether they were flushed or not."""
    silences: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        writer = writer_of(scope)
        await send(START)
        silences.append(writer.was_silent())
        silences.append(writer.was_silent())
        writer.write(b"one")
        silences.append(writer.was_silent())
        writer.write(b"two")
        silences.append(writer.was_silent())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        silences.append(writer.was_silent())
        silences.append(writer.was_silent())
        await send({"type": "http.response.body"})

    transport = await response_to(app)
    assert silences == [False, True, False, False, False, True]
    assert b"".join(transport.written).endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_client_that_does_not_read() -> None:
    """A response whose client does not read is not silent, so nothing is added to what is unsent."""
    silences: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        writer = writer_of(scope)
        await send(START)
        writer.was_silent()
        writer._socket_writer.paused = True
        silences.append(writer.was_silent())
        silences.append(writer.was_silent())
        writer._socket_writer.paused = False
        silences.append(writer.was_silent())
        await send({"type": "http.response.body"})

    await response_to(app)
    assert silences == [False, False, True]


def test_no_interval() -> None:
    """An interval of 0 starts no timer, which would need an event loop."""

    async def head() -> ResponseWriter:
        writers: list[ResponseWriter] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            writers.append(writer_of(scope))
            await send(START)
            await send({"type": "http.response.body"})

        await response_to(app)
        return writers[0]

    with KeepAlive(asyncio.run(head()), b"alive", 0, lambda: None):
        pass
