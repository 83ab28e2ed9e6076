"""Streams with keep-alives before the first token, between tokens, and before an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from langchain_openai import ChatOpenAI
from openai import APIError, AsyncOpenAI

from adapter.config import Settings
from subnet import Limits
from subnet.errors import NodeLost
from subnet.protocols.mock import MockProtocol, Pause
from tests.adapter.server.test_disconnect import NO_TIMEOUTS
from tests.fakes import ASK, gateway

OFTEN = Settings(access_log=False, sse_keep_alive=0.01)
SILENCE = Pause(0.1)


async def openai_chat(url: str) -> str:
    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(model="mock", messages=ASK["messages"], stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def openai_text(url: str) -> str:
    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        stream = await client.completions.create(model="mock", prompt="Hello", stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])


async def langchain(url: str) -> str:
    model = ChatOpenAI(base_url=url, api_key="any", model="mock", max_retries=0)  # type: ignore[arg-type]
    return "".join([str(piece.content) async for piece in model.astream("Hello")])


CLIENTS = [openai_chat, openai_text, langchain]


@pytest.mark.parametrize("client", CLIENTS)
async def test_keep_alives_are_ignored(client: Callable[[str], Awaitable[str]]) -> None:
    """Clients get the answer, and nothing of the comments around it."""
    node = MockProtocol([SILENCE, *b"H", SILENCE, *b"i", SILENCE])
    async with gateway(node, settings=OFTEN, limits=NO_TIMEOUTS) as url:
        assert await client(url + "/v1") == "Hi"


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_error_after_keep_alives(client: Callable[[str], Awaitable[str]]) -> None:
    """Clients raise the error that comes as an event, as the status was sent with the first keep-alive."""
    limits = Limits(first_token_timeout=3600, max_attempts=1, queue_timeout=0)
    async with gateway(MockProtocol([SILENCE, NodeLost("gone")]), settings=OFTEN, limits=limits) as url:
        with pytest.raises(APIError, match="No node could complete the request"):
            await client(url + "/v1")
