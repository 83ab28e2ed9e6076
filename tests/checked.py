"""Checks of responses against the types of OpenAI and Anthropic, and against OpenAI's published description if there is
a file of it.
"""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from typing import Any

import httptools
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject
from pydantic import BaseModel

from tests import checked_messages, published

_KINDS: dict[str, tuple[type[BaseModel], str]] = {
    "chat.completion": (ChatCompletion, "CreateChatCompletionResponse"),
    "chat.completion.chunk": (ChatCompletionChunk, "CreateChatCompletionStreamResponse"),
    "text_completion": (Completion, "CreateCompletionResponse"),
    "model": (Model, "Model"),
}


def check(data: Any) -> None:
    """Check the JSON of a response or event. Kinds that OpenAI does not have need only be objects."""
    assert isinstance(data, dict)
    if checked_messages.is_theirs(data):
        checked_messages.check(data)
    elif "error" in data:
        ErrorObject.model_validate(data["error"])
        _check_published("ErrorResponse", data)
    elif data.get("object") == "list":
        _check_list(data)
    elif data.get("object") in _KINDS:
        theirs, name = _KINDS[data["object"]]
        data = _described(data)
        theirs.model_validate(data)
        _check_published(name, data)


def check_events(body: str) -> None:
    """Check a stream, which may be cut off: each event, and rules about all of them together."""
    if body.startswith(("event: ", ":")) and "event: " in body:
        checked_messages.check_events(body)
        return
    events = [block.removeprefix("data: ") for block in body.split("\n\n")[:-1] if not block.startswith(":")]
    ended = bool(events) and events[-1] == "[DONE]"
    datas = [json.loads(event) for event in events[: -1 if ended else None]]
    for data in datas:
        check(data)
    assert not any("error" in data for data in datas[: None if ended else -1]), "an error is the last event"
    _check_together([data for data in datas if "error" not in data], ended)


def _check_together(chunks: list[Any], ended: bool) -> None:
    assert len({(one["id"], one["created"], one["model"], one["object"]) for one in chunks}) <= 1
    begun: Counter[int] = Counter()
    finished: Counter[int] = Counter()
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        index = choice["index"]
        assert not finished[index], "nothing comes after a finish reason"
        begun[index] += "delta" not in choice or "role" in choice["delta"]
        assert begun[index] == 1 or "text" in choice, "a role comes once, and first"
        finished[index] += choice["finish_reason"] is not None
    assert not ended or finished.keys() == {index for index in finished if finished[index] == 1}


def _check_list(data: dict[str, Any]) -> None:
    kinds = {one["object"] for one in data["data"]}
    if kinds == {"embedding"}:
        # OpenAI's types and description have numbers only, but clients request base64.
        data = data | {"data": [one | {"embedding": _numbers(one["embedding"])} for one in data["data"]]}
        CreateEmbeddingResponse.model_validate(data)
        _check_published("CreateEmbeddingResponse", data)
    else:
        assert kinds <= {"model"}
        for one in data["data"]:
            Model.model_validate(one)
        _check_published("ListModelsResponse", data)


def _numbers(embedding: str | list[float]) -> list[float]:
    if isinstance(embedding, str):
        return [number for (number,) in struct.iter_unpack("<f", base64.b64decode(embedding, validate=True))]
    return embedding


def _described(data: Any) -> Any:
    """Adapt a completion to OpenAI's description, which lacks nulls that its API sends: for the finish reason and
    the usage of an event, and for the logprob of a first token. A service tier is passed on as servers name theirs.
    """
    data = {name: value for name, value in data.items() if name != "service_tier"}
    if data.get("object") != "text_completion":
        return data
    choices = [
        one | {"finish_reason": one["finish_reason"] or "stop", "logprobs": _begun(one["logprobs"])}
        for one in data["choices"]
    ]
    return {name: value for name, value in data.items() if (name, value) != ("usage", None)} | {"choices": choices}


def _begun(logprobs: Any) -> Any:
    if logprobs is None or logprobs["token_logprobs"][:1] != [None]:
        return logprobs
    numbers, tops = logprobs["token_logprobs"], logprobs["top_logprobs"]
    return logprobs | {"token_logprobs": [0.0, *numbers[1:]], "top_logprobs": tops and [{}, *tops[1:]]}


def _check_published(name: str, data: object) -> None:
    if published.place() is not None:
        published.check(name, data)


class Checker:
    """Checker of one connection's responses, which are passed to `feed`; `answers` counts the checked ones. An
    incomplete response is ignored.
    """

    def __init__(self) -> None:
        self.answers = 0
        self._headers: dict[str, str] = {}
        self._body = b""
        self.feed = httptools.HttpResponseParser(self).feed_data
        """Parse and check bytes. Raises httptools.HttpParserCallbackError, caused by the failed check."""

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        kind = self._headers.get("content-type", "").partition(";")[0]
        if kind == "text/event-stream":
            check_events(self._body.decode())
        elif kind == "application/json":
            check(json.loads(self._body))
        self.answers += 1
