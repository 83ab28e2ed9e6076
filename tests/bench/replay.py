"""Server that replays an answer of the gateway event by event at a pace, for comparison.

`python -m tests.bench.replay answer.json` serves it by a plain asyncio protocol, which nginx passes through and which
is a node of the chat lane; `--asgi` by a plain ASGI application on uvicorn.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_MODELS = b'{"object":"list","data":[{"id":"echo","object":"model","created":1}]}'
_MODEL_LIST = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_MODELS) + _MODELS
)
_HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_ANSWERS = {b"/v1/models": _MODEL_LIST, b"/health": _HEALTHY}
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def pieces(answer: bytes) -> list[bytes]:
    """Split an answer's body into one write per token; the first includes the role, the last the finish reason and
    [DONE].
    """
    role, *tokens, finish, done = [event + b"\n\n" for event in answer.split(b"\n\n") if event]
    return [role + tokens[0], *tokens[1:], finish + done]


class Replay(asyncio.Protocol):
    """Protocol that sends the answer chunk by chunk; `running` has the connections that wait for the next chunk.

    The first chunk is sent with the head, so that a first token shows nothing but the delay by the program in between.
    A request with GET is for the list of models, or a health check.
    """

    def __init__(self, chunks: list[bytes], running: set[Replay]) -> None:
        self._first = _HEAD + chunks[0]
        self._chunks = chunks
        self._running = running
        self._request = b""
        self._at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's classes.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._request += data
        head, complete, body = self._request.partition(b"\r\n\r\n")
        if head.startswith(b"GET ") and complete:
            self._request = b""
            self._transport.write(_ANSWERS.get(head.split(b" ")[1], _NOT_FOUND))
            return
        length = _LENGTH.search(head)
        if length is not None and len(body) >= int(length[1]):
            self._request = b""
            self._transport.write(self._first)
            self._at = 1
            if len(self._chunks) > 1:
                self._running.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._running.discard(self)

    def step(self) -> None:
        self._transport.write(self._chunks[self._at])
        self._at += 1
        if self._at == len(self._chunks):
            self._running.discard(self)


async def serve(body: list[bytes], rate: float, certificate: Path | None = None) -> None:
    """Serve the answer, in one write if `rate` is 0, and over TLS if there is a `certificate`.

    Connections advance together, as the streams of an engine do.
    """
    loop, running = asyncio.get_running_loop(), cast(set[Replay], set())
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in body]
    chunks[-1] += b"0\r\n\r\n"
    if not rate:
        chunks = [b"".join(chunks)]
    server = await loop.create_server(
        lambda: Replay(chunks, running), "127.0.0.1", 0, backlog=4096, ssl=_tls(certificate)
    )
    host, port = server.sockets[0].getsockname()
    print(f"on http{'s' if certificate else ''}://{host}:{port}", flush=True)
    if not rate:
        await loop.create_future()
    due = loop.time()
    while True:
        for stream in list(running):
            stream.step()
        due = max(due + 1 / rate, loop.time() - 1)
        await asyncio.sleep(due - loop.time())


def _tls(certificate: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Steps:
    """Clock with `rate` ticks per second, as long as someone waits for the next one."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._due = 0.0
        self._next: asyncio.Future[None] | None = None

    def next(self) -> asyncio.Future[None]:
        """Return a future that is done at the next tick."""
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            due, now = self._due + self._interval, loop.time()
            self._due = due if due > now - 1 else now
            loop.call_at(self._due, self._step)
        return self._next

    def _step(self) -> None:
        if self._next is not None:
            self._next.set_result(None)
            self._next = None


def application(body: list[bytes], rate: float) -> Callable[..., Awaitable[None]]:
    """Return an ASGI application that replays the answer. All streams advance together, as those of an engine do."""
    steps = Steps(rate)

    async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await steps.next()
        await send({"type": "http.response.body", "body": b""})

    return app


def _serve_asgi(body: list[bytes], rate: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print("on http://{}:{}".format(*listener.getsockname()), flush=True)
    config = uvicorn.Config(application(body, rate), lifespan="off", access_log=False, log_level="warning")
    uvicorn.Server(config).run([listener])


def main() -> None:
    parser = argparse.ArgumentParser(prog="replay", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("answer", type=Path, help="a file with the body of an answer")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--certificate", type=Path, help="a file with a certificate and its key, to serve it over TLS")
    parser.add_argument("--asgi", action="store_true")
    options = parser.parse_args()
    body = pieces(options.answer.read_bytes())
    if options.asgi:
        _serve_asgi(body, options.rate)
    else:
        uvloop.run(serve(body, options.rate, options.certificate))


if __name__ == "__main__":
    main()
