"""Unusual values in requests on the chat lane: forwarded to the server, or rejected with one clear error."""

from __future__ import annotations

import json

import pytest

from tests.fakes import ASK
from tests.provider import TEXT, Provider
from tests.test_providers import CHAT, gateway_to

PLACES = [{"more": "@"}, {"metadata": {"more": "@"}}, {"messages": [{"role": "user", "content": "Hi", "more": "@"}]}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", ["1e400", "-1e400", "9" * 5000])
async def test_numbers_out_of_range_are_rejected(value: str, place: dict[str, object], stream: bool) -> None:
    """A number that no float can hold gets a 400 that names its parameter, also in a field that is forwarded."""
    body = json.dumps(ASK | {"stream": stream} | place).replace('"@"', value)
    async with gateway_to(provider := Provider()) as http:
        response = await http.post(CHAT, content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", next(iter(place)))
    assert not provider.chat_requests


async def test_long_integers_are_forwarded() -> None:
    """An integer of 400 digits is forwarded exactly."""
    async with gateway_to(provider := Provider()) as http:
        response = await http.post(CHAT, content=json.dumps(ASK | {"more": 10**400}))
    assert response.json()["choices"][0]["message"]["content"] == TEXT
    assert provider.chat_requests[0].body["more"] == 10**400


@pytest.mark.parametrize("stream", [False, True])
async def test_deep_nesting_is_forwarded_or_rejected(stream: bool) -> None:
    """Deeply nested JSON is either forwarded or rejected with 400, and the node stays healthy."""
    # Densely around the limit, which is lower where a debugger or a coverage measurement is active.
    depths = [*range(300, 900, 100), *range(900, 960, 3)]
    answered = 0
    async with gateway_to(provider := Provider()) as http:
        for depth in depths:
            body = json.dumps(ASK | {"stream": stream, "more": "@"}).replace('"@"', f"{'[' * depth}{']' * depth}")
            response = await http.post(CHAT, content=body)
            assert response.status_code in (200, 400)
            answered += response.status_code == 200
        assert (await http.get("/nodes")).json()["nodes"][0]["state"] == "healthy"
    assert 0 < answered == len(provider.chat_requests) < len(depths)
