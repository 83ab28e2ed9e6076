"""Load of streams over plain sockets, cheap enough to share a core with the nodes."""

from __future__ import annotations

import asyncio
import json
import re
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from itertools import count
from random import Random
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import msgspec

_EVENT = b"\n\n"
_HALF = re.compile(rb"(?<!\n)\n\Z")
_END = b"0\r\n\r\n"
# Unique in this process, so that no prompt is in a cache.
numbers = count()
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
AROUND = {CHAT: 3, MESSAGES: 5}
"""Events of an answer beside its tokens, by its path: the role, the finish reason and [DONE]; the start and the stop of
a message and of its block, and its finish reason.
"""


class Load(msgspec.Struct, frozen=True):
    """`streams` concurrent streams, each of which requests `answers` answers of `tokens` tokens, one after the other.

    They start at `ramp` per second, so that a thousand simultaneous connections are not what is measured. Before each
    answer they wait a random time of up to `pause` seconds; otherwise all later answers would start at the end of the
    same engine step.
    """

    streams: int
    tokens: int
    answers: int = 1
    ramp: float = 400.0
    pause: float = 0.0
    model: str = "echo"
    path: str = CHAT


class Answer(asyncio.Protocol):
    """One streamed answer on its own connection. `number` is its seed; all times are in seconds, `times` are those of
    its events.
    """

    def __init__(self, request: bytes, number: int) -> None:
        self.number = number
        self.done = asyncio.get_running_loop().create_future()
        self.sent = 0.0
        self.ended = False
        self.status = ""
        self.times = array("d")
        self._request = request
        self._last = b""

    @property
    def first(self) -> float:
        """Time of the first token, which follows the role."""
        return self.times[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's classes.
        self._transport = cast(asyncio.WriteTransport, transport)
        self.sent = perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        if not self.times:
            self.status = self.status or data[9:12].decode()
        events = data.count(_EVENT) + (data[:1] == b"\n" and _HALF.search(self._last) is not None)
        # Usually there is one event at a time.
        self.times.append(now) if events == 1 else self.times.extend([now] * events)
        # Only a short piece can have just a part of the end.
        self._last = (data if len(data) >= len(_END) else self._last + data)[-len(_END) :]
        if self._last == _END:
            self.ended = True
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def drive(url: str, load: Load, started: Callable[[int], None] = lambda number: None) -> list[Answer]:
    """Run the load and return the answers in the order requested. `started` is called with the number of streams
    started.
    """
    answers, most = list[Answer](), 0

    async def one(stream: int) -> None:
        nonlocal most
        if stream >= most:
            most = stream + 1
            started(most)
        try:
            answer = await ask(url, load.model, load.tokens, path=load.path)
        except OSError:
            # The connection was refused: an answer without status, events or end.
            answers.append(Answer(b"", stream))
        else:
            answers.append(answer)
            await answer.done

    await asyncio.gather(*each(load, one))
    return answers


def each(load: Load, ask: Callable[[int], Awaitable[None]]) -> Iterator[Coroutine[None, None, None]]:
    """Return the coroutines of a load's streams, which call `ask` with their numbers."""
    begin = perf_counter()

    async def stream(number: int) -> None:
        dice = Random(number)
        await asyncio.sleep(begin + number / load.ramp - perf_counter())
        for _ in range(load.answers):
            await asyncio.sleep(dice.uniform(0, load.pause))
            await ask(number)

    return map(stream, range(load.streams))


async def ask(url: str, model: str, tokens: int, text: str = "Tell me something.", path: str = CHAT) -> Answer:
    """Send a request, and return its answer before that has ended."""
    address, number = urlsplit(url), next(numbers)
    asked = request(url, model, tokens, number, text=text, path=path)
    connect = asyncio.get_running_loop().create_connection
    _, answer = await connect(partial(Answer, asked, number), address.hostname or "127.0.0.1", address.port or 80)
    return answer


def request(
    url: str,
    model: str,
    tokens: int,
    number: int,
    *,
    stream: bool = True,
    text: str = "Tell me something.",
    path: str = CHAT,
) -> bytes:
    """Return the bytes of a request. top_p keeps only tokens of an echo node that are whole characters, so that each
    token is one event.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"{number}: {text}"}],
        "max_tokens": tokens,
        "seed": number,
        "top_p": 0.5,
        "stream": stream,
    }
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def ask_all(url: str, total: int, tokens: int, mark: bytes, *, stream: bool) -> int:
    """Request `total` answers over 32 kept connections, and return their number. Raises Incomplete unless `mark` is in
    all of them.
    """
    requests = (request(url, "echo", tokens, next(numbers), stream=stream) for _ in range(total))
    address, asking = urlsplit(url), []
    for _ in range(32):
        _, one = await asyncio.get_running_loop().create_connection(
            lambda: Asking(requests, mark), address.hostname or "127.0.0.1", address.port or 80
        )
        asking.append(one)
    for one in asking:
        await one.done
    right = sum(one.right for one in asking)
    if right != total:
        raise Incomplete(f"{total - right} of {total} short answers are wrong")
    return right


class Incomplete(Exception):
    """Raised if answers were cut off, or did not have exactly one event per token."""


class Asking(asyncio.Protocol):
    """Requests answers over one connection, one after the other, until `requests` is exhausted."""

    def __init__(self, requests: Iterator[bytes], mark: bytes) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.right = 0
        self.wrong = 0
        self._requests = requests
        self._mark = mark
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found or not _is_complete(head.lower(), body):
            return
        if head.startswith(b"HTTP/1.1 200") and self._mark in body:
            self.right += 1
        else:
            self.wrong += 1
        self._data = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _next(self) -> None:
        following = next(self._requests, None)
        if following is None:
            self._transport.close()
        else:
            self._transport.write(following)


def _is_complete(head: bytes, body: bytes) -> bool:
    length = head.partition(b"content-length:")[2].split(b"\r", 1)[0]
    return len(body) >= int(length) if length else body.endswith(_END)
