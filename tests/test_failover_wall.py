"""Forty ways in which a provider's model goes wrong, with a backup behind the same address.

The gateway runs with the settings that the README shows for a provider, only its timeouts are shorter. In each case the
backup says the same, or something else: then the client gets the backup's answer, or the part so far with one error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from adapter.config import Settings
from adapter.process.gateway import limits_of
from subnet.http.node_spec import NodeSpec
from subnet.protocols.openai import OpenAIProtocol
from tests.fakes import ASK, events_of, gateway
from tests.provider import (
    TEXT,
    Cut,
    Pause,
    Provider,
    Script,
    Scripted,
    answer,
    chunk,
    connection_reset,
    cut_off,
    error_event,
    error_response,
    event,
    events,
    json_response,
    malformed,
    message,
    pieces,
    raw,
    split,
    stalled,
    text_events,
    truncated,
    unresponsive,
)
from tests.test_providers import CHAT, by_model

OTHER = "A quite different answer."
_HTML = {"content-type": "text/html"}
_JSON = {"content-type": "application/json"}


def after(count: int, *steps: Any) -> Script:
    """Return a stream of this number of words, followed by `steps`."""
    return Script([*text_events(TEXT)[: count + 1], *steps])


def with_error(error: Any) -> Script:
    return after(3, event({"error": error}), event("[DONE]"))


BEFORE_THE_ANSWER: dict[str, Scripted] = {
    "rate limit": error_response(429, retry_after=60),
    "rate limit without a time": error_response(429),
    "rate limit until a date": error_response(429, retry_after="Wed, 01 Jan 2098 00:00:00 GMT"),
    "out of credit": error_response(429, "You exceeded your current quota.", code="insufficient_quota"),
    "payment required": error_response(402, "Insufficient credits."),
    "internal error": error_response(500),
    "bad gateway, as a page": raw("<html>502 Bad Gateway</html>", headers=_HTML, status=502),
    "overloaded": error_response(503, retry_after=60),
    "overloaded, with a status of its own": error_response(529, type="overloaded_error"),
    "gateway timeout": raw("upstream request timeout", headers={"content-type": "text/plain"}, status=504),
    "invalid key": error_response(401, code="invalid_api_key"),
    "forbidden": error_response(403),
    "model not found": error_response(404, code="model_not_found"),
    "no body": Script([], 500, {}),
    "connection reset": connection_reset(),
    "silence": unresponsive(),
    "silence after the headers": Script([Pause()]),
    "an error with status 200": json_response({"error": {"message": "overloaded", "type": "server_error"}}),
    "an error event first": events({"error": {"message": "overloaded", "code": 503}}),
    "an empty stream": Script([]),
    "only [DONE]": events(),
    "a page with status 200": raw("<html>Login</html>", headers=_HTML),
    "half a JSON answer": raw('{"id": "chatcmpl-1", "choices": [{"ind', headers=_JSON),
    "choices of another shape": events({"choices": "none"}),
}
WITHIN_THE_ANSWER: dict[str, Scripted] = {
    "connection reset in mid-answer": cut_off(3),
    "connection reset in mid-event": after(3, event(chunk({"content": " lost"}))[:20], Cut()),
    "the end without a finish reason": truncated(3),
    "a stall": stalled(3),
    "a stall after the role": Script([*text_events(TEXT)[:1], Pause()]),
    "a malformed event": malformed(3),
    "an event of another type": after(3, event("[1, 2]"), Pause()),
    "an error event": error_event(3, {"message": "broke", "type": "server_error"}),
    "an error event with a status": with_error({"message": "Overloaded", "code": 529}),
    "an error event as text": with_error("upstream closed"),
    "an error event called a bad request": with_error({"message": "EngineCore died", "code": 400}),
    "an error event with a name": after(3, event({"message": "broke", "type": "server_error"}, name="error")),
    "an error as finish reason": after(3, event(chunk(finish="error")), event("[DONE]")),
}
ODD_BUT_WHOLE: dict[str, Scripted] = {
    "a JSON answer to a stream": json_response(message()),
    "split at any byte": split(answer(), 7),
    "[DONE] without a finish reason": answer(finish=None),
}
WALL = BEFORE_THE_ANSWER | WITHIN_THE_ANSWER | ODD_BUT_WHOLE


def test_there_are_forty() -> None:
    assert len(WALL) == 40


@asynccontextmanager
async def gateway_to(fault: Scripted, backup: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run a gateway in front of one provider with a faulty model, its backup, and a model of other users."""
    scripts = by_model(primary=fault, backup=answer(backup), unrelated=answer("Still here."))
    provider = Provider(scripts, models=("primary", "backup", "unrelated"))
    settings = Settings(access_log=False, fallbacks={"primary": ("backup",)})
    limits = msgspec.structs.replace(limits_of(settings), chat_first_token_timeout=0.4, chat_inter_token_timeout=0.4)
    async with provider, AsyncExitStack() as stack:
        node = OpenAIProtocol(NodeSpec(url=provider.url, kind="openai"))
        url = await stack.enter_async_context(gateway(node, settings=settings, limits=limits))
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))


async def ask(http: httpx.AsyncClient, model: str, stream: bool) -> tuple[str, list[Mapping[str, Any]]]:
    """Return the text that the client gets, and the errors."""
    response = await http.post(CHAT, json=ASK | {"model": model, "stream": stream})
    if not stream:
        body = response.json()
        return ("", [body["error"]]) if "error" in body else (body["choices"][0]["message"]["content"], [])
    assert response.status_code == 200
    found = events_of(response.content)
    errors = [each["error"] for each in found if "error" in each]
    assert (found[-1] == "[DONE]") == (not errors)
    choices = [choice for each in found if isinstance(each, dict) for choice in each.get("choices") or ()]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"] * (not errors)
    return "".join(choice["delta"].get("content") or "" for choice in choices), errors


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", WALL.values(), ids=WALL.keys())
async def test_a_backup_that_says_the_same(fault: Scripted, stream: bool) -> None:
    """The client gets the whole answer each time, and the other models at the address are not affected."""
    async with gateway_to(fault, TEXT) as http:
        for _ in range(2):
            assert await ask(http, "primary", stream) == (TEXT, [])
            assert await ask(http, "unrelated", stream) == ("Still here.", [])


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", WALL.values(), ids=WALL.keys())
async def test_a_backup_that_says_something_else(fault: Scripted, stream: bool) -> None:
    """An answer never has the words of two models: a begun one ends with one error, any other is the backup's."""
    begun = "".join(pieces(TEXT)[:3])
    async with gateway_to(fault, OTHER) as http:
        text, errors = await ask(http, "primary", stream)
        if stream and fault in WITHIN_THE_ANSWER.values() and text != OTHER:
            assert (text, len(errors)) == (begun, 1)
        else:
            assert (text, errors) == (TEXT if fault in ODD_BUT_WHOLE.values() else OTHER, [])
        assert await ask(http, "unrelated", stream) == ("Still here.", [])
