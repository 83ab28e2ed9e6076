"""HTTP client that sends a question and records every event of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tests.faults.answers import Answer, arguments_of, text_of

SECONDS = 60.0
"""Timeout: an answer of these tests that takes longer has hung."""


MESSAGES = "/v1/messages"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Request for a chat completion, a text completion, or a message (without `seed` and `stop`). The defaults give an
    answer of 24 tokens, some of them parts of characters. `more` has further parameters.
    """

    model: str = "echo"
    prompt: str = "go"
    max_tokens: int | None = 24
    temperature: float = 1.0
    seed: int | None = 7
    stop: str | None = None
    stream: bool = True
    more: dict[str, Any] = {}
    path: str = "/v1/chat/completions"

    @property
    def body(self) -> bytes:
        wanted: dict[str, Any] = {field: getattr(self, field) for field in self.__struct_fields__}
        if wanted.pop("path") in ("/v1/chat/completions", MESSAGES):
            wanted["messages"] = [{"role": "user", "content": wanted.pop("prompt")}]
        wanted |= wanted.pop("more")
        if self.stream and self.path != MESSAGES:
            wanted["stream_options"] = {"include_usage": True}
        return json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()


OnText = Callable[[int], None]


def ask(url: str, question: Question, on_text: OnText | None = None) -> Answer:
    """Send a question on a new connection. `on_text` is called after each piece of text or of a tool call's arguments,
    with the number of pieces so far.
    """
    with closing(connect(url)) as connection:
        return ask_over(connection, question, on_text)


def connect(url: str) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)


def ask_over(connection: HTTPConnection, question: Question, on_text: OnText | None = None) -> Answer:
    """Send a question on an open connection. Raises HTTPException if the response is not well-formed HTTP."""
    send(connection, question)
    response = connection.getresponse()
    answer = Answer(status=response.status, headers={name.lower(): value for name, value in response.getheaders()})
    answer.switched = int(answer.headers.get("x-subnet-switches", 0))
    pieces = 0
    for event in _events(response):
        if isinstance(event, Comment):
            answer.switched = max(answer.switched, event.nodes - 1)
            continue
        answer.events.append(event)
        answer.times.append(perf_counter())
        if text_of(event) or arguments_of(event):
            pieces += 1
            if on_text is not None:
                on_text(pieces)
    return answer


def send(connection: HTTPConnection, question: Question) -> None:
    connection.request("POST", question.path, question.body, {"content-type": "application/json"})


def get(url: str) -> Any:
    """Return the JSON at `url`."""
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=5)) as connection:
        connection.request("GET", address.path)
        return json.loads(connection.getresponse().read())


class Comment(msgspec.Struct):
    """Comment in a stream, which clients ignore: the number of nodes that were used."""

    nodes: int


def _events(response: HTTPResponse) -> Iterator[Any]:
    if not response.headers["content-type"].startswith("text/event-stream"):
        yield json.loads(response.read())
        return
    for line in response:
        if line.startswith(b"data: "):
            data = line.removeprefix(b"data: ").strip()
            yield json.loads(data) if data != b"[DONE]" else "[DONE]"
        elif line.startswith(b": nodes "):
            yield Comment(line.count(b",") + 1)
        elif line.startswith(b": x-subnet-switches: "):
            yield Comment(int(line.rpartition(b" ")[2]) + 1)
        elif not line.startswith(b"event: "):  # the name of a message's event is also its type
            assert line.startswith((b"\n", b": keep-alive", b": x-")), f"neither an event nor a comment: {line!r}"
