"""A client that looks closely: asks one question and keeps every event of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import msgspec

SECONDS = 60.0
"""No answer of these tests takes longer: what does has hung."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults give an answer of 24 tokens, among them parts of characters."""

    model: str = "echo"
    prompt: str = "go"
    max_tokens: int | None = 24
    temperature: float = 1.0
    seed: int | None = 7
    stop: str | None = None
    stream: bool = True

    @property
    def body(self) -> bytes:
        wanted: dict[str, Any] = {field: getattr(self, field) for field in self.__struct_fields__}
        wanted["messages"] = [{"role": "user", "content": wanted.pop("prompt")}]
        if self.stream:
            wanted["stream_options"] = {"include_usage": True}
        return json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()


class Answer(msgspec.Struct, kw_only=True):
    """`events` are the data of a streamed answer, or the one JSON of another; `times` when each event came."""

    status: int
    headers: dict[str, str]
    events: list[Any] = []
    times: list[float] = []

    @property
    def choices(self) -> list[Any]:
        return [choice for event in self.events if event != "[DONE]" for choice in event.get("choices", ())]

    @property
    def texts(self) -> list[str]:
        """The pieces in which the text came."""
        pieces = ((choice.get("delta") or choice.get("message") or {}).get("content") for choice in self.choices)
        return [piece for piece in pieces if piece]

    @property
    def text_times(self) -> list[float]:
        """When each of `texts` came."""
        timed = zip(self.events, self.times, strict=True)
        return [at for event, at in timed if Answer(status=200, headers={}, events=[event]).texts]

    @property
    def reasons(self) -> list[str]:
        return [choice["finish_reason"] for choice in self.choices if choice["finish_reason"]]

    @property
    def errors(self) -> list[Any]:
        return [event["error"] for event in self.events if "error" in event]

    @property
    def usages(self) -> list[Any]:
        return [event["usage"] for event in self.events if event != "[DONE]" and event.get("usage")]

    @property
    def outcome(self) -> tuple[str, list[str], list[Any]]:
        """What must be the same with and without a fault."""
        return "".join(self.texts), self.reasons, self.usages

    @property
    def complete(self) -> bool:
        """Whether it came to its end, and is formed as every answer must be."""
        if self.status != 200 or self.errors or len(self.reasons) != 1 or len(self.usages) != 1:
            return False
        if self.events[-1] != "[DONE]":
            return len(self.events) == 1 and "message" in self.choices[0]
        chunks = self.events[:-1]
        same = {(chunk["id"], chunk["created"], chunk["model"], chunk["system_fingerprint"]) for chunk in chunks}
        begins = [choice for choice in self.choices if "role" in choice["delta"]]
        return "[DONE]" not in chunks and len(same) == 1 and len(begins) == 1 and chunks[-1]["choices"] == []


OnText = Callable[[int], None]


def ask(url: str, question: Question, on_text: OnText | None = None) -> Answer:
    """`on_text` is called after each piece of text with how many there are now."""
    with closing(connect(url)) as connection:
        return ask_over(connection, question, on_text)


def connect(url: str) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)


def ask_over(connection: HTTPConnection, question: Question, on_text: OnText | None = None) -> Answer:
    """On a connection that stays open. Raises HTTPException where the HTTP itself is not well formed."""
    send(connection, question)
    response = connection.getresponse()
    answer = Answer(status=response.status, headers={name.lower(): value for name, value in response.getheaders()})
    pieces = 0
    for event in _events(response):
        answer.events.append(event)
        answer.times.append(perf_counter())
        if Answer(status=200, headers={}, events=[event]).texts:
            pieces += 1
            if on_text is not None:
                on_text(pieces)
    return answer


def send(connection: HTTPConnection, question: Question) -> None:
    connection.request("POST", "/v1/chat/completions", question.body, {"content-type": "application/json"})


def get(url: str) -> Any:
    """The JSON at `url`."""
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=5)) as connection:
        connection.request("GET", address.path)
        return json.loads(connection.getresponse().read())


def _events(response: HTTPResponse) -> Iterator[Any]:
    if not response.headers["content-type"].startswith("text/event-stream"):
        yield json.loads(response.read())
        return
    for line in response:
        if line.startswith(b"data: "):
            data = line.removeprefix(b"data: ").strip()
            yield json.loads(data) if data != b"[DONE]" else "[DONE]"
        else:
            assert line == b"\n" or line.startswith(b":"), f"neither an event nor a comment: {line!r}"
