"""Providers that misbehave, each in its way: what the caller got, and what the provider saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from adapter.config import Settings
from subnet import Limits, RemoteManager, SessionManager
from subnet.chat import ChatRequest
from subnet.errors import SubnetError
from subnet.http.node_spec import NodeSpec
from subnet.protocols.openai import OpenAIProtocol
from tests.fakes import ASK, events_of, gateway
from tests.provider import (
    TEXT,
    Provider,
    Scripted,
    answer,
    broken,
    cut,
    ended,
    late,
    malformed,
    pieces,
    refuse,
    reset,
    silent,
    stalled,
)

CHAT = "/v1/chat/completions"
LIMITS = Limits(
    first_token_timeout=0.3,
    prefill_rate=1e6,
    inter_token_timeout=0.3,
    retry_timeout=2.0,
    max_attempts=3,
    backoff=0.01,
    queue_timeout=0.2,
)
POLICY = refuse(400, "rejected by our content policy", code="content_policy_violation")
TOO_LONG = refuse(400, "This model's maximum context length is 8 tokens.", code="context_length_exceeded")
TRAILING = refuse(400, "The last message must not be of the assistant.", param="messages")


@asynccontextmanager
async def served(*providers: Provider, models: Sequence[str] = (), **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway in front of them; the i-th serves `models[i]`, or all serve "mock"."""
    async with AsyncExitStack() as stack:
        nodes = []
        for index, provider in enumerate(providers):
            await stack.enter_async_context(provider)
            name = models[index] if models else "mock"
            nodes.append(node_of(provider, name))
        options = Settings(access_log=False, **settings)
        url = await stack.enter_async_context(gateway(*nodes, settings=options, limits=LIMITS))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
        async with asyncio.timeout(5):
            while {row["state"] for row in (await http.get("/nodes")).json()["nodes"]} != {"healthy"}:
                await asyncio.sleep(0)
        yield http


def node_of(provider: Provider, name: str = "mock", **spec: Any) -> OpenAIProtocol:
    return OpenAIProtocol(NodeSpec(url=provider.url, kind="openai", models={name: "model"}, **spec))


async def ask(http: httpx.AsyncClient, stream: bool, **more: Any) -> tuple[int, str, str | None]:
    """Status, what was said, and the code of the error, in the answer or at the end of its stream."""
    response = await http.post(CHAT, json=ASK | {"stream": stream} | more)
    if response.status_code != 200:
        return response.status_code, "", response.json()["error"]["code"]
    if not stream:
        return 200, response.json()["choices"][0]["message"]["content"], None
    events = events_of(response.content)
    errors = [event["error"]["code"] for event in events[:-1] if "error" in event]
    last = events[-1]
    if last != "[DONE]":
        errors.append(last["error"]["code"])
    said = [event["choices"][0]["delta"].get("content") or "" for event in events[:-1] if event.get("choices")]
    assert len(errors) <= 1
    return 200, "".join(said), errors[0] if errors else None


@dataclass(frozen=True)
class Case:
    """What a provider does, alone; and what the caller gets, streamed and not, after so many attempts."""

    scripts: Sequence[Scripted]
    attempts: int
    status: int = 200
    code: str | None = None
    said: str = TEXT
    body: dict[str, Any] = field(default_factory=dict)

    async def check(self, stream: bool) -> None:
        provider = Provider(*self.scripts)
        async with served(provider) as http:
            got = await ask(http, stream, **self.body)
            begun = stream and bool(self.said) and self.code is not None
            status = 200 if begun else self.status
            assert got == (status, self.said if begun or self.code is None else "", self.code)
            assert len(provider.chats) == self.attempts
            provider.then(answer())
            await self._well(http)

    async def _well(self, http: httpx.AsyncClient) -> None:
        """Once its provider is, the gateway is well, too."""
        async with asyncio.timeout(10):
            while (await ask(http, stream=False)) != (200, TEXT, None):
                await asyncio.sleep(0.05)


SEEDED = {"seed": 1}
ALONE = {
    "429 with Retry-After": Case([refuse(429, retry_after=1)], 1, 429, "rate_limit_exceeded", ""),
    "429 without": Case([refuse(429), answer()], 1, 429, "rate_limit_exceeded", ""),
    "500 once": Case([refuse(500), answer()], 2),
    "503 for good": Case([refuse(503)], 3, 503, "node_failed", ""),
    "401": Case([refuse(401, code="invalid_api_key")], 3, 502, "node_refused", ""),
    "reset before headers": Case([reset(), answer()], 2),
    "silent once": Case([silent(), answer()], 2),
    "silent for good": Case([silent()], 3, 504, "model_timeout", ""),
    "cut, and repeated": Case([cut(3), answer()], 2, body=SEEDED),
    "cut twice, and repeated": Case([cut(3), cut(5), answer()], 3, body=SEEDED),
    "ended without an end": Case([ended(3), answer()], 2, body=SEEDED),
    "stalled": Case([stalled(3), answer()], 2, body=SEEDED),
    "a malformed event": Case([malformed(3), answer()], 2, body=SEEDED),
    "an error event": Case([broken(3, {"message": "broke", "type": "server_error"}), answer()], 2, body=SEEDED),
    "no [DONE]": Case([answer(done=False)], 1),
    "CRLF": Case([answer(crlf=True)], 1),
    "no usage": Case([answer(usage=False)], 1),
    "context length": Case([TOO_LONG], 1, 400, "context_length_exceeded", ""),
    "content policy": Case([POLICY], 1, 400, "content_policy_violation", ""),
    "a wrong parameter": Case([refuse(400, "no such thing", param="top_p")], 1, 400, "invalid_value", ""),
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("case", ALONE.values(), ids=ALONE.keys())
async def test_alone(case: Case, stream: bool) -> None:
    """The caller gets the whole answer or one truthful error; the provider is not hammered, and all is well after."""
    await case.check(stream)


FAULTS: dict[str, Scripted] = {
    "429": refuse(429, retry_after=30),
    "500": refuse(500),
    "503": refuse(503, retry_after=30),
    "401": refuse(401),
    "reset": reset(),
    "silent": silent(),
    "cut": cut(2),
    "stalled": stalled(4),
    "malformed": malformed(1),
    "error event": broken(5, {"message": "x", "type": "server_error"}),
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_beside_a_good_one(fault: Scripted, stream: bool) -> None:
    """Another provider of the same model answers, or goes on: the caller sees nothing of it."""
    bad, good = Provider(fault), Provider()
    async with served(bad, good) as http:
        assert await ask(http, stream, seed=1) == (200, TEXT, None)
    assert (len(bad.chats), len(good.chats)) == (1, 1)
    assert good.chats[0].body["messages"] == ASK["messages"]


@pytest.mark.parametrize("fault", [*FAULTS.values(), TOO_LONG], ids=[*FAULTS.keys(), "context length"])
async def test_a_fallback(fault: Scripted) -> None:
    """Another model answers for one that cannot, as long as the caller saw nothing of that."""
    bad, other = Provider(fault), Provider(answer("From the other."))
    async with served(bad, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
        said = (await http.post(CHAT, json=ASK)).json()
    assert (said["model"], said["choices"][0]["message"]["content"]) == ("other", "From the other.")
    assert said["usage"]["completion_tokens"] == len(pieces("From the other."))
    assert len(bad.chats) <= LIMITS.max_attempts
    assert len(other.chats) == 1


async def test_a_lost_answer_that_nobody_saw() -> None:
    """Where an answer is shown whole, one that is lost and not repeated is begun anew."""
    provider = Provider(cut(3), answer("Quite another text."))
    async with served(provider) as http:
        assert await ask(http, stream=False) == (200, "Quite another text.", None)
    assert len(provider.chats) == 3


async def test_a_lost_answer_that_is_not_repeated() -> None:
    """What was seen stays, and one error ends it."""
    provider = Provider(cut(3), answer("Quite another text."))
    async with served(provider) as http:
        assert await ask(http, stream=True) == (200, "One two three", "node_failed")
    assert len(provider.chats) == 2


async def test_no_model_goes_on_with_the_words_of_another() -> None:
    """Once something was seen it is one clean error."""
    bad, other = Provider(cut(3), refuse(500)), Provider()
    async with served(bad, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
        assert await ask(http, stream=True) == (200, "One two three", "node_failed")
    assert other.chats == []


async def test_what_was_refused_is_not_asked_elsewhere() -> None:
    """A refusal of what was said is the answer."""
    strict, other = Provider(POLICY), Provider()
    async with served(strict, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
        assert await ask(http, False) == (400, "", "content_policy_violation")
    assert (len(strict.chats), len(other.chats)) == (1, 0)


async def test_a_fallback_that_takes_no_trailing_assistant_message() -> None:
    """Its refusal is not the caller's mistake: the caller hears why the model that it asked for failed, or the next
    one answers."""
    messages = [*ASK["messages"], {"role": "assistant", "content": "One"}]
    bad, fussy, good = Provider(refuse(500)), Provider(TRAILING), Provider()
    names = ["mock", "fussy", "good"]
    async with served(bad, fussy, good, models=names, fallbacks={"mock": ("fussy", "good")}) as http:
        assert await ask(http, True, messages=messages) == (200, TEXT, None)
    async with served(bad, fussy, models=names, fallbacks={"mock": ("fussy",)}) as http:
        assert await ask(http, True, messages=messages) == (503, "", "node_failed")


async def test_a_slow_first_token() -> None:
    """Slow is not dead: a provider that answers in time is waited for."""
    moment = asyncio.Event()
    provider = Provider(late(moment))
    async with served(provider) as http:
        asked = asyncio.create_task(ask(http, True))
        async with asyncio.timeout(5):
            while not provider.chats:
                await asyncio.sleep(0)
        moment.set()
        assert await asked == (200, TEXT, None)
    assert len(provider.chats) == 1


async def test_a_caller_that_leaves() -> None:
    """The provider's work ends, too."""
    provider = Provider(stalled(2))
    async with served(provider) as http:
        async with http.stream("POST", CHAT, json=ASK | {"stream": True}) as response:
            await anext(response.aiter_bytes())
        async with asyncio.timeout(5):
            await provider.chats[0].gone.wait()


async def test_a_provider_that_flaps() -> None:
    """For a minute a provider fails five seconds and works five: with another one beside it every caller has its
    answer, and while it fails it is asked seldom; afterwards it is used as before."""
    flapping, steady = Provider(), Provider()
    now = 0.0
    async with flapping, steady:
        nodes = [
            OpenAIProtocol(NodeSpec(url=one.url, kind="openai", models={"mock": "model"})) for one in (flapping, steady)
        ]
        async with RemoteManager(nodes, clock=lambda: now) as remotes:
            while len([remote for remote in remotes.remotes if remote.unreachable_reason is None]) < 2:
                await asyncio.sleep(0)
            sessions = SessionManager(remotes, limits=LIMITS)
            for tick in range(600):
                now = tick / 10
                flapping.then(refuse(500) if int(now) % 10 < 5 else answer())
                assert await said(sessions) == TEXT
            failed = sum(1 for seen in flapping.chats if seen is not None)
            # Half of 600 would go there if nothing kept them away; three open the breaker, then one per cooldown.
            bad = next(row for row in remotes.remotes if row.peer == nodes[0].peer)
            flapping.then(answer())
            now += 60
            before = len(flapping.chats)
            for _ in range(20):
                assert await said(sessions) == TEXT
            assert len(flapping.chats) - before == 10
            assert bad.breaker.state(now) == "closed"
            assert failed < 300


async def said(sessions: SessionManager) -> str:
    parts: list[str] = []
    async with sessions.session("mock") as session:
        await session.chat(
            ChatRequest(model="mock", body={"messages": ASK["messages"]}), lambda delta: parts.append(delta.text)
        )
    return "".join(parts)


async def test_no_key_is_told() -> None:
    """Whatever fails, neither an answer nor a log has the key."""
    provider = Provider(refuse(401, "Incorrect API key provided: sk-very-secret"))
    async with provider:
        node = OpenAIProtocol(
            NodeSpec(url=provider.url, kind="openai", models={"mock": "model"}, api_key="sk-very-secret")
        )
        async with RemoteManager([node]) as remotes:
            await remotes.ready()
            with pytest.raises(SubnetError) as caught:
                await said(SessionManager(remotes, limits=LIMITS))
    assert provider.chats[0].headers["Authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in str(caught.value)
