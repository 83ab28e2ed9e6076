"""The checks of answers find what they are for."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httptools
import httpx
import pytest

from tests import published
from tests.checked import Checker, check, check_events
from tests.checked_messages import decode_events
from tests.fakes import ASK, gateway, saying
from tests.relay import Relay

Change = Callable[[list[Any]], object]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with gateway(saying("Hi")) as url:
        yield url


async def events(url: str) -> list[Any]:
    async with httpx.AsyncClient() as client:
        response = await client.post(url + "/v1/chat/completions", json={**ASK, "stream": True})
    return [json.loads(block[6:]) for block in response.text.split("\n\n") if block.startswith("data: {")]


def written(events: list[Any], end: str = "data: [DONE]\n\n") -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + end


CHANGES: list[Change] = [
    lambda chunks: chunks[0].pop("id"),
    lambda chunks: chunks[1].update(id="another"),
    lambda chunks: chunks[1].update(created=1),
    lambda chunks: chunks[1]["choices"][0]["delta"].update(content=7),
    lambda chunks: chunks[1]["choices"][0].update(finish_reason="stop"),
    lambda chunks: chunks[1]["choices"][0]["delta"].update(role="assistant"),
    lambda chunks: chunks.pop(0),
    lambda chunks: chunks.pop(),
    lambda chunks: chunks.insert(1, {"error": {"message": "m", "type": "t", "param": None, "code": None}}),
    lambda chunks: chunks.append({"error": {"message": "m"}}),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_streams(url: str, change: Change) -> None:
    """A valid stream passes the check, and a modified one does not."""
    chunks = await events(url)
    check_events(written(chunks))
    changed = copy.deepcopy(chunks)
    change(changed)
    with pytest.raises((AssertionError, ValueError)):
        check_events(written(changed))


MESSAGE_CHANGES: list[Change] = [
    lambda events: events[0]["message"].pop("id"),
    lambda events: events[0]["message"].update(content=[{"type": "text", "text": "Hi"}]),
    lambda events: events[2].update(index=1),
    lambda events: events[2]["delta"].update(type="thinking_delta", thinking="Hi"),
    lambda events: events.pop(0),
    lambda events: events.pop(1),
    lambda events: events.pop(-3),
    lambda events: events.pop(-2),
    lambda events: events.insert(1, events[0]),
    lambda events: events.append({"type": "error", "error": {"type": "strange", "message": "m"}, "request_id": "r"}),
    lambda events: events.append({"type": "error", "error": {"type": "api_error", "message": "m"}}),
]


@pytest.mark.parametrize("change", MESSAGE_CHANGES)
async def test_streams_of_messages(url: str, change: Change) -> None:
    """Nor does a modified stream of a message in Anthropic's dialect."""
    async with httpx.AsyncClient() as client:
        body = {**ASK, "max_tokens": 9, "stream": True}
        events = decode_events((await client.post(url + "/v1/messages", json=body)).text)
    check_events(named(events))
    change(events)
    with pytest.raises((AssertionError, ValueError)):
        check_events(named(events))


def named(events: list[Any]) -> str:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


async def test_cut_streams(url: str) -> None:
    """A stream that was cut off need not be complete, but its events are checked."""
    chunks = await events(url)
    check_events(written(chunks[:2], end=""))
    with pytest.raises(ValueError, match="id"):
        check_events(written([{**chunks[0], "id": 7}], end="data: {"))


def test_the_published_description() -> None:
    """A response that the package accepts but OpenAI's description does not is rejected, if that file exists."""
    published.description()
    with pytest.raises(Exception, match="param"):
        check({"error": {"message": "m", "type": "t", "code": None}})


def test_connections() -> None:
    """Every response on a connection is checked, however its bytes are split."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    checker = Checker()
    for byte in answer + b"{}" + answer + b"{}":
        checker.feed(bytes([byte]))
    assert checker.answers == 2
    with pytest.raises(httptools.HttpParserCallbackError):
        checker.feed(answer + b"[]")


async def test_relay(url: str) -> None:
    """A client behind the relay gets the server's own responses, and the relay has checked them."""
    with Relay(url) as relay:
        async with httpx.AsyncClient() as client:
            for stream in (False, True):
                asked = {**ASK, "stream": stream}
                straight, relayed = [
                    await client.post(base + "/v1/chat/completions", json=asked) for base in (url, relay.url)
                ]
                assert len(straight.content) == len(relayed.content)
        relay.check()
        assert relay.answers == 2
