"""A gateway in front of misbehaving providers: what the client gets, and what each provider receives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from adapter.config import Settings
from subnet import Limits, RemoteManager, SessionManager
from subnet.chat import ChatRequest
from subnet.errors import SubnetError
from subnet.http.node_spec import Kind, NodeSpec
from subnet.protocols.base import Protocol
from subnet.protocols.openai import OpenAIProtocol
from tests.fakes import ASK, events_of, gateway, saying
from tests.provider import (
    TEXT,
    Cut,
    Pause,
    Provider,
    RecordedRequest,
    Script,
    Scripted,
    answer,
    chunk,
    connection_reset,
    cut_off,
    delayed,
    error_event,
    error_response,
    event,
    events,
    json_response,
    malformed,
    pieces,
    raw,
    stalled,
    text_events,
    truncated,
    unresponsive,
    usage_of,
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
WEATHER = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": '}}
WHOLE_CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
OVERLOADED = {"message": "Overloaded", "type": "overloaded_error"}
ENGINE_DEAD = {"message": "EngineCore encountered an issue.", "type": "BadRequestError", "param": None, "code": 400}
POLICY = error_response(400, "rejected by our content policy", code="content_policy_violation")
TOO_LONG = error_response(400, "This model's maximum context length is 8 tokens.", code="context_length_exceeded")
TRAILING = error_response(400, "The last message must not be of the assistant.", param="messages")


@asynccontextmanager
async def gateway_to(
    *providers: Provider, models: Sequence[str] = (), **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a gateway in front of `providers`; the i-th serves `models[i]`, or all serve "mock"."""
    async with AsyncExitStack() as stack:
        nodes = []
        for index, provider in enumerate(providers):
            await stack.enter_async_context(provider)
            name = models[index] if models else "mock"
            nodes.append(node_of(provider, name))
        options = Settings(access_log=False, **settings)
        url = await stack.enter_async_context(gateway(*nodes, settings=options, limits=LIMITS))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
        await until_healthy(http)
        yield http


async def until_healthy(http: httpx.AsyncClient) -> None:
    """Wait until all nodes are healthy."""
    async with asyncio.timeout(5):
        while {row["state"] for row in (await http.get("/nodes")).json()["nodes"]} != {"healthy"}:
            await asyncio.sleep(0)


def node_of(provider: Provider, name: str = "mock", kind: Kind = "openai", **spec: Any) -> OpenAIProtocol:
    return OpenAIProtocol(NodeSpec(url=provider.url, kind=kind, models={name: "model"}, **spec))


@asynccontextmanager
async def gateway_to_nodes(
    *nodes: tuple[Provider, dict[str, Any]], settings: Settings | None = None, limits: Limits = LIMITS
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a gateway in front of providers, each with the settings of its node."""
    async with AsyncExitStack() as stack:
        protocols = []
        for provider, spec in nodes:
            await stack.enter_async_context(provider)
            protocols.append(node_of(provider, **spec))
        settings = settings or Settings(access_log=False)
        url = await stack.enter_async_context(gateway(*protocols, settings=settings, limits=limits))
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))


def text_of(response: httpx.Response) -> str:
    """Return the text of a streamed answer."""
    chunks = [event for event in events_of(response.content)[:-1] if event.get("choices")]
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks)


async def ask(http: httpx.AsyncClient, stream: bool, **more: Any) -> tuple[int, str, str | None]:
    """Return the status, the text, and the code of the error in the response or at the end of its stream."""
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
    text = [event["choices"][0]["delta"].get("content") or "" for event in events[:-1] if event.get("choices")]
    assert len(errors) <= 1
    return 200, "".join(text), errors[0] if errors else None


@dataclass(frozen=True)
class Case:
    """Scripts of a single provider, and the expected number of attempts and response, streamed and not."""

    scripts: Sequence[Scripted]
    attempts: int
    status: int = 200
    code: str | None = None
    text: str = TEXT
    body: dict[str, Any] = field(default_factory=dict)

    async def check(self, stream: bool) -> None:
        provider = Provider(*self.scripts)
        async with gateway_to(provider) as http:
            got = await ask(http, stream, **self.body)
            partial = stream and bool(self.text) and self.code is not None
            status = 200 if partial else self.status
            assert got == (status, self.text if partial or self.code is None else "", self.code)
            assert len(provider.chat_requests) == self.attempts
            provider.set_scripts(answer())
            await self._recovered(http)

    async def _recovered(self, http: httpx.AsyncClient) -> None:
        """Wait until the gateway answers again, now that its provider does."""
        async with asyncio.timeout(10):
            while (await ask(http, stream=False)) != (200, TEXT, None):
                await asyncio.sleep(0.05)


SEEDED = {"seed": 1}


def pieces_of(count: int) -> str:
    """Return the first pieces of TEXT."""
    return "".join(pieces(TEXT)[:count])


def finishing_each() -> Script:
    """Return an answer whose chunks all have a finish reason, as Gemini's did."""
    return events(*(chunk({"content": piece}, "stop") for piece in pieces(TEXT)))


ALONE = {
    "429 with Retry-After": Case([error_response(429, retry_after=1)], 1, 429, "rate_limit_exceeded", ""),
    "429 without Retry-After": Case([error_response(429), answer()], 1, 429, "rate_limit_exceeded", ""),
    "500 once": Case([error_response(500), answer()], 2),
    "503 permanently": Case([error_response(503)], 3, 503, "node_failed", ""),
    "401": Case([error_response(401, code="invalid_api_key")], 1, 502, "node_refused", ""),
    "404": Case([error_response(404, code="model_not_found")], 1, 503, "node_failed", ""),
    "overloaded in mid-answer": Case([error_event(3, OVERLOADED)], 1, 503, "engine_overloaded", pieces_of(3), SEEDED),
    "reset before headers": Case([connection_reset(), answer()], 2),
    "unresponsive once": Case([unresponsive(), answer()], 2),
    "unresponsive permanently": Case([unresponsive()], 3, 504, "model_timeout", ""),
    "cut off, and repeated": Case([cut_off(3), answer()], 2, body=SEEDED),
    "cut off twice, and repeated": Case([cut_off(3), cut_off(5), answer()], 3, body=SEEDED),
    "truncated": Case([truncated(3), answer()], 2, body=SEEDED),
    "stalled": Case([stalled(3), answer()], 2, body=SEEDED),
    "engine failure called a bad request": Case([error_event(3, ENGINE_DEAD), answer()], 2, body=SEEDED),
    "engine failure before any text": Case([error_event(0, ENGINE_DEAD), answer()], 2),
    "unlimited tokens": Case([cut_off(3), answer()], 2, body=SEEDED | {"max_tokens": -1}),
    "token limit as text": Case([cut_off(3), answer()], 2, body=SEEDED | {"max_tokens": "100"}),
    "invalid response_format": Case([cut_off(3), answer()], 2, body=SEEDED | {"response_format": ["json"]}),
    "refused in mid-answer": Case([cut_off(3), error_response(400), answer()], 3, body=SEEDED),
    "a finish reason in each chunk": Case([finishing_each()], 1),
    "malformed event": Case([malformed(3), answer()], 2, body=SEEDED),
    "error event": Case([error_event(3, {"message": "broke", "type": "server_error"}), answer()], 2, body=SEEDED),
    "no [DONE]": Case([answer(done=False)], 1),
    "CRLF": Case([answer(crlf=True)], 1),
    "no usage": Case([answer(usage=False)], 1),
    "context length": Case([TOO_LONG], 1, 400, "context_length_exceeded", ""),
    "content policy": Case([POLICY], 1, 400, "content_policy_violation", ""),
    "invalid parameter": Case([error_response(400, "no", param="top_p", code="no_top_p")], 1, 400, "no_top_p", ""),
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("case", ALONE.values(), ids=ALONE.keys())
async def test_single_provider(case: Case, stream: bool) -> None:
    """A client gets the whole answer or one accurate error, and the provider is usable afterwards."""
    await case.check(stream)


FAULTS: dict[str, Scripted] = {
    "429": error_response(429, retry_after=30),
    "500": error_response(500),
    "503": error_response(503, retry_after=30),
    "401": error_response(401),
    "connection reset": connection_reset(),
    "unresponsive": unresponsive(),
    "cut off": cut_off(2),
    "stalled": stalled(4),
    "malformed": malformed(1),
    "error event": error_event(5, {"message": "x", "type": "server_error"}),
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_failover_to_a_second_provider(fault: Scripted, stream: bool) -> None:
    """A second provider of the same model answers, or continues, without a visible change for the client."""
    bad, good = Provider(fault), Provider()
    async with gateway_to(bad, good) as http:
        assert await ask(http, stream, seed=1) == (200, TEXT, None)
    assert (len(bad.chat_requests), len(good.chat_requests)) == (1, 1)
    assert good.chat_requests[0].body["messages"] == ASK["messages"]


@pytest.mark.parametrize("fault", [*FAULTS.values(), TOO_LONG], ids=[*FAULTS.keys(), "context length"])
async def test_fallback_model(fault: Scripted) -> None:
    """A fallback model answers if the requested one fails before any text was sent."""
    bad, other = Provider(fault), Provider(answer("From the other."))
    async with gateway_to(bad, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
        response = (await http.post(CHAT, json=ASK)).json()
    assert (response["model"], response["choices"][0]["message"]["content"]) == ("other", "From the other.")
    assert response["usage"]["completion_tokens"] == len(pieces("From the other."))
    assert len(bad.chat_requests) <= LIMITS.max_attempts
    assert len(other.chat_requests) == 1


async def test_lost_answer_that_is_not_streamed() -> None:
    """A lost answer that was not streamed yet is generated again."""
    provider = Provider(cut_off(3), answer("Quite another text."))
    async with gateway_to(provider) as http:
        assert await ask(http, stream=False) == (200, "Quite another text.", None)
    assert len(provider.chat_requests) == 3


async def test_lost_answer_that_cannot_be_repeated() -> None:
    """A streamed answer that cannot be repeated ends with one error after the text sent so far."""
    provider = Provider(cut_off(3), answer("Quite another text."))
    async with gateway_to(provider) as http:
        assert await ask(http, stream=True) == (200, "One two three", "node_failed")
    assert len(provider.chat_requests) == 2


async def test_fallback_that_repeats_the_answer_goes_on() -> None:
    """A fallback model goes on with an answer of which text was sent if it says the same so far."""
    bad, other = Provider(cut_off(3), error_response(500)), Provider()
    async with gateway_to(bad, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
        response = await http.post(CHAT, json=ASK | {"stream": True, "stream_options": {"include_usage": True}})
    assert text_of(response) == TEXT
    chunks = events_of(response.content)[:-1]
    assert {(each["id"], each["model"]) for each in chunks} == {(chunks[0]["id"], "mock")}
    assert chunks[-1]["usage"]["completion_tokens"] == len(pieces(TEXT))
    assert "; replayed 3 tokens" in response.text


async def test_fallback_that_differs_does_not_go_on() -> None:
    """A fallback model whose answer differs from the text that was sent is skipped, and the next one is asked."""
    bad, wrong = Provider(cut_off(3), error_response(500)), Provider(answer("One two four."))
    names = ["mock", "wrong", "good"]
    async with gateway_to(bad, wrong, models=names, fallbacks={"mock": ("wrong",)}) as http:
        assert await ask(http, stream=True) == (200, "One two three", "node_failed")
    bad, wrong, good = Provider(cut_off(3), error_response(500)), Provider(answer("One two four.")), Provider()
    async with gateway_to(bad, wrong, good, models=names, fallbacks={"mock": ("wrong", "good")}) as http:
        assert await ask(http, stream=True) == (200, TEXT, None)
    assert [len(one.chat_requests) for one in (wrong, good)] == [1, 1]


@pytest.mark.parametrize("lane", ["chat", "token"])
async def test_fallback_continues_if_allowed(lane: str) -> None:
    """With `fallback_continues`, a fallback that says something else continues the text, and the comment says so."""
    bad = Provider(cut_off(3), error_response(500))
    other = Provider(answer("One two four."), answer(" and the rest."))
    tokens = saying(" and the rest.", model="other", peer="tokens")
    async with bad, other:
        node: Protocol = tokens if lane == "token" else node_of(other, "other", "vllm")
        settings = Settings(access_log=False, fallbacks={"mock": ("other",)}, fallback_continues=True)
        async with gateway(node_of(bad), node, settings=settings, limits=LIMITS) as url:
            async with httpx.AsyncClient(base_url=url, timeout=20) as http:
                counted = {"include_usage": True, "continuous_usage_stats": True}
                body = ASK | {"stream": True, "max_tokens": 50, "stream_options": counted}
                response = await http.post(CHAT, json=body)
    assert text_of(response) == "One two three and the rest."
    assert "; continued by other\n" in response.text
    *_, so_far, usage = (part["usage"] for part in events_of(response.content)[:-1])
    assert so_far["completion_tokens"] == usage["completion_tokens"]
    if lane == "chat":
        sent = other.chat_requests[1].body
        assert sent["messages"][-1] == {"role": "assistant", "content": "One two three"}
        assert (sent["max_tokens"], sent["continue_final_message"]) == (47, True)
        assert usage["completion_tokens"] == 3 + len(pieces(" and the rest."))
    else:
        prompt = bytes(np.frombuffer(tokens.requests[-1].prompt.data, np.int32).astype(np.uint8)).decode()
        assert prompt.endswith("Assistant: One two three")
        assert usage["completion_tokens"] == 3 + len(" and the rest.")


@pytest.mark.parametrize("body", [{"n": 2}, {"tools": TOOLS}, {"response_format": {"type": "json_object"}}])
async def test_what_a_fallback_cannot_continue(body: dict[str, Any]) -> None:
    """An answer that cannot be continued from its text ends in an error event, also with `fallback_continues`."""
    bad, tokens = Provider(cut_off(3), error_response(500)), saying(" more", model="other", peer="tokens")
    async with bad:
        settings = Settings(access_log=False, fallbacks={"mock": ("other",)}, fallback_continues=True)
        async with gateway(node_of(bad), tokens, settings=settings, limits=LIMITS) as url:
            async with httpx.AsyncClient(base_url=url, timeout=20) as http:
                response = await http.post(CHAT, json=ASK | {"stream": True} | body)
    assert " more" not in response.text
    assert '"error"' in response.text


def cut_calls(*deltas: dict[str, Any]) -> Script:
    """Return a stream of these deltas that is cut off."""
    return Script([*(event(chunk(delta)) for delta in deltas), Cut()])


FIRST = {"reasoning_content": "Let me "}, {"reasoning_content": "see."}, {"tool_calls": [WEATHER | {"index": 0}]}
REST = {"tool_calls": [{"index": 0, "function": {"arguments": '"Bonn"}'}}]}


@pytest.mark.parametrize("where", ["another deployment", "a fallback"])
async def test_a_tool_call_goes_on_elsewhere(where: str) -> None:
    """A tool call that was cut off goes on where the repeated call is equal letter for letter, and only there."""
    whole = events(*(chunk(delta) for delta in (*FIRST, REST)), chunk(finish="tool_calls"))
    other_call = {"tool_calls": [{**WEATHER, "index": 0, "function": {"name": "weather", "arguments": '{"town": '}}]}
    other = events(*(chunk(delta) for delta in (*FIRST[:2], other_call, REST)), chunk(finish="tool_calls"))
    for script, complete in ((whole, True), (other, False)):
        bad, good = Provider(cut_calls(*FIRST), error_response(500)), Provider(script)
        models = ["mock", "mock" if where == "another deployment" else "other"]
        fallbacks = {} if where == "another deployment" else {"mock": ("other",)}
        async with gateway_to(bad, good, models=models, fallbacks=fallbacks) as http:
            response = await http.post(CHAT, json=ASK | {"stream": True, "seed": 1, "tools": TOOLS})
        deltas = [each["choices"][0]["delta"] for each in events_of(response.content)[:-1] if each.get("choices")]
        reasoning = "".join(delta.get("reasoning_content") or "" for delta in deltas)
        calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
        arguments = "".join(call["function"]["arguments"] for call in calls)
        assert reasoning == "Let me see."
        assert [call["function"]["name"] for call in calls if "name" in call["function"]] == ["weather"]
        assert (arguments == '{"city": "Bonn"}', '"error"' in response.text) == (complete, not complete)


async def test_content_policy_has_no_fallback() -> None:
    """A request that violates the content policy is not sent to the fallback model."""
    strict, other = Provider(POLICY), Provider()
    async with gateway_to(strict, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
        assert await ask(http, False) == (400, "", "content_policy_violation")
    assert (len(strict.chat_requests), len(other.chat_requests)) == (1, 0)


async def test_fallback_that_rejects_prefill() -> None:
    """A fallback model that rejects a trailing assistant message is skipped, and its error is not reported."""
    messages = [*ASK["messages"], {"role": "assistant", "content": "One"}]
    bad, fussy, good = Provider(error_response(500)), Provider(TRAILING), Provider()
    names = ["mock", "fussy", "good"]
    async with gateway_to(bad, fussy, good, models=names, fallbacks={"mock": ("fussy", "good")}) as http:
        assert await ask(http, True, messages=messages) == (200, TEXT, None)
    async with gateway_to(bad, fussy, models=names, fallbacks={"mock": ("fussy",)}) as http:
        assert await ask(http, True, messages=messages) == (503, "", "node_failed")


def by_model(**scripts: Scripted) -> Scripted:
    """Return a script for a provider of several models."""

    def script(request: RecordedRequest) -> Script:
        found = scripts[request.body["model"]]
        return found(request) if callable(found) else found

    return script


@asynccontextmanager
async def gateway_to_two_models(fault: Scripted, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Provider]]:
    """Run a gateway in front of one provider, whose model "bad" has a fault."""
    provider = Provider(by_model(bad=fault, good=answer("From the good one.")), models=("bad", "good"))
    async with provider, AsyncExitStack() as stack:
        node = OpenAIProtocol(NodeSpec(url=provider.url, kind="openai"))
        url = await stack.enter_async_context(
            gateway(node, settings=Settings(access_log=False, **settings), limits=LIMITS)
        )
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20)), provider


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_failing_model_does_not_affect_others_at_its_address(fault: Scripted, stream: bool) -> None:
    """Another model of the same provider is served at once, whatever happens to the first, and can be its fallback."""
    async with gateway_to_two_models(fault) as (http, _):
        for _ in range(4):
            await ask(http, stream, model="bad")
            assert await ask(http, stream, model="good") == (200, "From the good one.", None)
    async with gateway_to_two_models(fault, fallbacks={"bad": ("good",)}) as (http, _):
        for _ in range(4):
            # Streamed answers of which a part was sent are the subject of other tests.
            assert await ask(http, False, model="bad") == (200, "From the good one.", None)


async def test_a_short_retry_after_is_waited_for() -> None:
    """A short Retry-After of the requested model is waited for, though it has a fallback; a long one is not."""
    for wait, expected in ((0.1, TEXT), (30, "From the other.")):
        limited, other = Provider(error_response(429, retry_after=wait), answer()), Provider(answer("From the other."))
        async with gateway_to(limited, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
            assert await ask(http, False) == (200, expected, None)


async def test_an_unannounced_wait_is_not_waited_for() -> None:
    """A full server that does not say for how long does not hold up the fallback."""
    limits = msgspec.structs.replace(LIMITS, queue_timeout=60.0, max_retry_after=60.0)
    settings = Settings(access_log=False, fallbacks={"mock": ("other",)})
    for busy in (error_response(529), error_response(429), error_event(0, OVERLOADED)):
        full, other = Provider(busy), Provider(answer("From the other."))
        nodes: list[tuple[Provider, dict[str, Any]]] = [(full, {}), (other, {"name": "other"})]
        async with gateway_to_nodes(*nodes, settings=settings, limits=limits) as http:
            assert await ask(http, True) == (200, "From the other.", None)
        assert len(full.chat_requests) == 1


async def test_failover_is_bounded_in_time() -> None:
    """A retry that brings no new token within failover_timeout ends the answer with one error event."""
    first, second = Provider(cut_off(3), stalled(1)), Provider(stalled(1))
    limits = msgspec.structs.replace(LIMITS, first_token_timeout=60.0, inter_token_timeout=60.0, failover_timeout=0.3)
    async with first, second:
        async with gateway(node_of(first), node_of(second), settings=Settings(access_log=False), limits=limits) as url:
            async with httpx.AsyncClient(base_url=url, timeout=20) as http:
                assert await ask(http, True, seed=1) == (200, "One two three", "model_timeout")


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_failover_to_fallbacks_is_bounded_in_time(stream: bool) -> None:
    """The time that failover may take is counted from the first failure, whichever model is asked meanwhile."""
    first, other = Provider(cut_off(3) if stream else error_response(500)), Provider(unresponsive())
    limits = msgspec.structs.replace(LIMITS, first_token_timeout=60.0, failover_timeout=0.5)
    settings = Settings(access_log=False, fallbacks={"mock": ("other",)})
    async with AsyncExitStack() as stack:
        for provider in (first, other):
            await stack.enter_async_context(provider)
        protocols = node_of(first), node_of(other, "other")
        url = await stack.enter_async_context(gateway(*protocols, settings=settings, limits=limits))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))
        status, text, code = await ask(http, stream)
    assert (status, text, code) == ((200, "One two three", "node_failed") if stream else (503, "", "node_failed"))
    assert len(other.chat_requests) == 1


WAITING = 'vllm:num_requests_running{model_name="m"} 8.0\nvllm:num_requests_waiting{engine="0",model_name="m"} %s\n'


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("vllm", WAITING % "2.0"),
        ("sglang", "sglang:num_queue_reqs 2\n"),
        ("tgi", "tgi_queue_size 1e0\n"),
        ("llama-server", "# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 3\n"),
    ],
)
async def test_a_server_with_a_queue_is_waited_for(kind: Kind, metrics: str) -> None:
    """A request that waits in its server's queue is not asked again, however long it waits for its first token."""
    moment = asyncio.Event()
    provider = Provider(unresponsive(moment), answer(), routes={"/metrics": raw(metrics)})
    async with gateway_to_nodes((provider, {"kind": kind, "first_token_timeout": 0.2})) as http:
        request = asyncio.create_task(ask(http, True))
        async with asyncio.timeout(10):
            while len(provider.requests_to("/metrics")) < 8:
                await asyncio.sleep(0.01)
        moment.set()
        assert await request == (200, TEXT, None)
    assert len(provider.chat_requests) == 1


@pytest.mark.parametrize("metrics", [raw(WAITING % "0.0"), raw("no metrics"), error_response(404), unresponsive()])
async def test_a_silent_server_without_a_queue_is_asked_again(metrics: Script) -> None:
    """A server that shows no queue is asked again after the first-token timeout."""
    provider = Provider(unresponsive(), answer(), routes={"/metrics": metrics})
    async with gateway_to_nodes((provider, {"kind": "vllm", "first_token_timeout": 0.2})) as http:
        assert await ask(http, True) == (200, TEXT, None)
    assert len(provider.chat_requests) == 2


@pytest.mark.parametrize(("slots", "attempts"), [(1, 1), (2, 2)])
async def test_more_requests_than_slots_wait(slots: int, attempts: int) -> None:
    """A llama-server without metrics declares its slots: while others get tokens, a request beyond them waits."""
    moment = asyncio.Event()
    words = text_events("word " * 120)
    busy = Script([*(step for word in words for step in (word, Pause(0.02))), *answer("").steps[1:]])
    waiting = (unresponsive(moment), answer())
    provider = Provider(busy, *waiting, routes={"/props": json_response({"total_slots": slots})})
    async with gateway_to_nodes((provider, {"kind": "llama-server", "first_token_timeout": 0.6})) as http:
        first = asyncio.create_task(ask(http, True))
        while not provider.chat_requests:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(ask(http, True))
        assert (await first)[0] == 200
        moment.set()
        assert await second == (200, TEXT, None)
    assert len(provider.chat_requests) == 1 + attempts


async def test_a_resumed_answer_is_not_bounded_in_time() -> None:
    """Once a retry has brought a new token, failover_timeout no longer applies, however long the answer takes."""
    whole = list(answer().steps)
    first, second = Provider(cut_off(3)), Provider(Script([*whole[:5], Pause(0.6), *whole[5:]]))
    limits = msgspec.structs.replace(LIMITS, first_token_timeout=60.0, inter_token_timeout=60.0, failover_timeout=0.3)
    async with gateway_to_nodes((first, {}), (second, {}), limits=limits) as http:
        assert await ask(http, True, seed=1) == (200, TEXT, None)


async def test_a_stall_is_waited_out_once() -> None:
    """A server that stalls in mid-answer is asked once more if there is no other, and then a fallback is."""
    bad, other = Provider(stalled(3)), Provider()
    async with gateway_to(bad, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
        assert await ask(http, True) == (200, TEXT, None)
    assert len(bad.chat_requests) == 2


async def test_a_fallback_is_asked_after_the_first_timeout() -> None:
    """After a first-token timeout another deployment or a fallback is asked at once, not the same server again."""
    silent, other = Provider(unresponsive()), Provider(answer("From the other."))
    async with gateway_to(silent, other, models=["mock", "other"], fallbacks={"mock": ("other",)}) as http:
        assert await ask(http, True) == (200, "From the other.", None)
    assert len(silent.chat_requests) == 1
    silent, second, other = Provider(unresponsive()), Provider(), Provider()
    names = ["mock", "mock", "other"]
    async with gateway_to(silent, second, other, models=names, fallbacks={"mock": ("other",)}) as http:
        assert await ask(http, True) == (200, TEXT, None)
    assert [len(one.chat_requests) for one in (silent, second, other)] == [1, 1, 0]


def by_seed(request: RecordedRequest) -> Script:
    """Answer with a text that depends on the seed alone, as a server does that repeats itself."""
    seed = request.body.get("seed")
    return answer(f"One two three {'without a' if seed is None else seed} seed.")


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama-server", "ollama"])
async def test_an_unseeded_answer_is_repeated(kind: Kind) -> None:
    """A server that repeats itself gets a seed of the gateway's own, so that the commonest request survives a cut."""
    first, second = Provider(cut_off(3)), Provider(by_seed)
    async with gateway_to_nodes((first, {"kind": kind}), (second, {"kind": kind})) as http:
        response = await http.post(CHAT, json=ASK | {"stream": True})
        counted = (await http.get("/metrics")).text
    seeds = [one.chat_requests[0].body["seed"] for one in (first, second)]
    assert seeds[0] == seeds[1]
    assert second.chat_requests[0].body["messages"] == ASK["messages"]
    assert text_of(response) == f"One two three {seeds[0]} seed."
    assert "; replayed 3 tokens" in response.text
    assert 'adapter_tokens_total{kind="replayed",model="mock"} 3.0' in counted


async def test_no_seed_where_it_does_not_help() -> None:
    """A hosted provider gets a seed only if its node says so, and greedy or seeded requests stay as they are."""
    for spec, body, expected in (
        ({}, {}, False),
        ({"seeds": True}, {}, True),
        ({"kind": "vllm", "seeds": False}, {}, False),
        ({"kind": "vllm"}, {"temperature": 0}, False),
        ({"kind": "vllm"}, {"seed": 5}, True),
    ):
        provider = Provider()
        async with gateway_to_nodes((provider, spec)) as http:
            assert (await ask(http, True, **body))[0] == 200
        sent = provider.chat_requests[0].body
        assert ("seed" in sent, sent.get("seed") == 5) == (expected, "seed" in body)


async def test_a_server_that_refuses_seeds() -> None:
    """A request whose seed the client did not set goes out again without it, and the next one without it at once."""

    def refuse(request: RecordedRequest) -> Script:
        return error_response(400, "unsupported parameter: seed", param="seed") if "seed" in request.body else answer()

    provider = Provider(refuse)
    async with gateway_to_nodes((provider, {"kind": "vllm"})) as http:
        assert await ask(http, True) == (200, TEXT, None)
        assert await ask(http, True) == (200, TEXT, None)
        assert await ask(http, True, seed=1) == (400, "", None)
    assert ["seed" in request.body for request in provider.chat_requests] == [True, False, False, True]


async def test_replays_can_be_switched_off() -> None:
    """A node with `replay = false` is not asked for an answer again once a part of it was delivered."""
    provider = Provider(cut_off(3), answer())
    async with gateway_to_nodes((provider, {"replay": False})) as http:
        assert await ask(http, True, seed=1) == (200, "One two three", "node_failed")
    assert len(provider.chat_requests) == 1


PASSED: dict[str, dict[str, Any]] = {
    "store": {"store": True, "metadata": {"a": "b"}},
    "web_search_options": {"web_search_options": {"search_context_size": "low"}},
    "audio": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "response_format with a schema": {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
    "video": {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://x/y"}}]}]},
    "five stop strings": {"stop": ["a", "b", "c", "d", "e"]},
    "temperature 2.5": {"temperature": 2.5},
    "tool names with dots": {"tools": [{"type": "function", "function": {"name": "files.read", "parameters": {}}}]},
    "hosted tools": {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
    "roles": {"messages": [{"role": "critic", "content": "Hello"}]},
    "unknown parameters": {"safe_prompt": True, "extra": {"deep": [1, None]}},
    "a large seed": {"seed": 2**64 - 1},
}


@pytest.mark.parametrize("body", PASSED.values(), ids=PASSED.keys())
async def test_parameters_are_passed_on(body: dict[str, Any]) -> None:
    """What the gateway does not need itself reaches the server as it came: the server judges it."""
    provider = Provider()
    async with gateway_to(provider, strict=True) as http:
        assert await ask(http, True, **body) == (200, TEXT, None)
    assert {name: provider.chat_requests[0].body[name] for name in body} == body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("status", "code"), [(400, "unsupported_value"), (413, None), (422, "too_hot")])
async def test_refusals_come_back_as_they_are(status: int, code: str | None, stream: bool) -> None:
    """The server's refusal reaches the client with its status, message, type, param and code."""
    error = {"message": "temperature: at most 2", "type": "a_type", "param": "temperature", "code": code}
    async with gateway_to(Provider(json_response({"error": error}, status))) as http:
        response = await http.post(CHAT, json=ASK | {"stream": stream, "temperature": 2.5})
    assert (response.status_code, response.json()["error"]) == (status, error)


CITATION = {"url": "https://example.com", "title": "Example", "start_index": 0, "end_index": 3}
OLD_CALL = {"function_call": {"name": "weather", "arguments": '{"city": "Bonn"}'}}


@pytest.mark.parametrize("delta", [OLD_CALL, {"tool_calls": [{"index": 0, "id": "call_1", **WHOLE_CALL}]}])
async def test_functions(delta: dict[str, Any]) -> None:
    """A request with the older `functions` gets a `function_call`, streamed and not, and its finish reason."""
    script = events(chunk(delta), chunk(finish="function_call"))
    body = ASK | {"functions": [{"name": "weather", "parameters": {"type": "object"}}]}
    provider = Provider(script)
    async with gateway_to(provider) as http:
        streamed = events_of((await http.post(CHAT, json=body | {"stream": True})).content)[:-1]
        whole = (await http.post(CHAT, json=body)).json()["choices"][0]
    calls = [one["choices"][0]["delta"].get("function_call", {}) for one in streamed]
    assert provider.chat_requests[0].body["functions"] == body["functions"]
    assert "".join(call.get("name", "") for call in calls) == "weather"
    assert "".join(call.get("arguments", "") for call in calls) == OLD_CALL["function_call"]["arguments"]
    assert streamed[-1]["choices"][0]["finish_reason"] == whole["finish_reason"] == "function_call"
    assert (whole["message"]["function_call"], "tool_calls" in whole["message"]) == (OLD_CALL["function_call"], False)


ANNOTATION = {"type": "url_citation", "url_citation": CITATION}
EXTRA = (
    {"content": "One"},
    {"content": " two", "annotations": [ANNOTATION]},
    {"audio": {"id": "audio_1", "data": "AAAA", "transcript": "One "}},
    {"audio": {"data": "BBBB", "transcript": "two", "expires_at": 5}, "x_provider": {"depth": 3}},
)
MEMBERS = {
    "annotations": [ANNOTATION],
    "audio": {"id": "audio_1", "data": "AAAABBBB", "transcript": "One two", "expires_at": 5},
    "x_provider": {"depth": 3},
}


async def test_what_is_passed_on_comes_back() -> None:
    """Members of a message and of a choice that the gateway does not make itself reach the client unchanged."""
    finish = chunk(finish="stop", content_filter_results={"hate": {"filtered": False}}, stop_reason=None)
    script = events(*(chunk(delta) for delta in EXTRA), finish)
    async with gateway_to(Provider(script)) as http:
        streamed = await http.post(CHAT, json=ASK | {"stream": True})
        whole = (await http.post(CHAT, json=ASK)).json()["choices"][0]
    choices = [each["choices"][0] for each in events_of(streamed.content)[:-1]]
    deltas = [{name: value for name, value in one["delta"].items() if name in MEMBERS} for one in choices]
    sent = [{name: value for name, value in delta.items() if name in MEMBERS} for delta in EXTRA]
    assert [delta for delta in deltas if delta] == [delta for delta in sent if delta]
    assert text_of(streamed) == "One two"
    assert whole["message"] == {"role": "assistant", "content": "One two", "refusal": None, **MEMBERS}
    for choice in (choices[-2], whole):
        assert (choice["content_filter_results"], "stop_reason" in choice) == ({"hate": {"filtered": False}}, False)


@pytest.mark.parametrize("where", ["another deployment", "a fallback"])
async def test_answers_with_other_members_are_not_spliced(where: str) -> None:
    """An answer with members that cannot be compared ends in an error event, or is begun anew before its first byte."""
    whole = events(*(chunk(delta) for delta in EXTRA), chunk(finish="stop"))
    models = ["mock", "mock" if where == "another deployment" else "other"]
    fallbacks = {} if where == "another deployment" else {"mock": ("other",)}
    for stream in (True, False):
        bad, good = Provider(cut_calls(*EXTRA[:2])), Provider(whole)
        async with gateway_to(bad, good, models=models, fallbacks=fallbacks) as http:
            got = await ask(http, stream, seed=1)
        assert got == ((200, "One two", "node_failed") if stream else (200, "One two", None))


CUSTOM = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT "}}
REST_OF_CUSTOM = {"index": 0, "custom": {"input": "1"}}


async def test_usage_of_the_first_chunk_only() -> None:
    """A usage that a server sends before its answer, and never updates, is replaced by an estimate."""
    first = {**chunk({"role": "assistant"}), **usage_of(7, 0)}
    async with gateway_to(Provider(events(first, chunk({"content": "a"}), chunk({"content": "b"}, "stop")))) as http:
        usage = (await http.post(CHAT, json=ASK)).json()["usage"]
    assert usage["completion_tokens"] == 2


async def test_calls_of_custom_tools_are_passed_on() -> None:
    """Calls of custom tools, which the gateway does not make itself, reach the client as they are."""
    script = events(
        chunk({"tool_calls": [CUSTOM]}), chunk({"tool_calls": [REST_OF_CUSTOM]}), chunk(finish="tool_calls")
    )
    async with gateway_to(Provider(script)) as http:
        choice = (await http.post(CHAT, json=ASK | {"tools": [{"type": "custom", "custom": {"name": "sql"}}]})).json()
    message = choice["choices"][0]["message"]
    assert message["tool_calls"][0]["custom"] == {"name": "sql", "input": "SELECT 1"}
    assert choice["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("where", ["another deployment", "a fallback"])
async def test_a_finished_choice_gets_nothing_more(where: str) -> None:
    """A choice that was finished is not continued by an answer in which it is longer."""
    both = [chunk({"content": "A"}), chunk({"content": "B"}, index=1), chunk(finish="stop")]
    longer = [chunk({"content": "A more"}), chunk({"content": "B more"}, index=1)]
    bad = Provider(Script([*(event(each) for each in both), Cut()]))
    good = Provider(events(*longer, chunk(finish="stop"), chunk(finish="stop", index=1)))
    models = ["mock", "mock" if where == "another deployment" else "other"]
    fallbacks = {} if where == "another deployment" else {"mock": ("other",)}
    async with gateway_to(bad, good, models=models, fallbacks=fallbacks) as http:
        response = await http.post(CHAT, json=ASK | {"stream": True, "seed": 1, "n": 2})
    chunks = [each["choices"][0] for each in events_of(response.content)[:-1] if each.get("choices")]
    for index in (0, 1):
        reasons = [one["finish_reason"] for one in chunks if one["index"] == index]
        assert all(reason is None for reason in reasons[:-1])


async def test_a_replay_repeats_all_calls() -> None:
    """A replay that leaves out a delivered call, even one without arguments, differs."""
    named = [{"index": index, "id": f"c{index}", "function": {"name": "weather", "arguments": ""}} for index in (0, 1)]
    bad = Provider(cut_calls({"content": "Hi"}, *({"tool_calls": [one]} for one in named)), error_response(500))
    good = Provider(events(chunk({"content": "Hi"}), chunk({"content": " there"}), chunk(finish="stop")))
    async with gateway_to(bad, good) as http:
        response = await http.post(CHAT, json=ASK | {"stream": True, "seed": 1, "tools": TOOLS})
    assert " there" not in response.text
    assert '"error"' in response.text


async def test_halves_of_surrogate_pairs_anywhere() -> None:
    """Halves of surrogate pairs in logprobs, other members and errors neither fail a request nor break a stream."""
    half = r'{"choices":[{"index":0,"delta":{"content":"\ud83d"},"stop_reason":"\ud83d","logprobs":{"content":[%s]}}]}'
    entry = r'{"token":"\ud83d","logprob":null}'
    rest = r'{"choices":[{"index":0,"delta":{"content":"\ude00"},"finish_reason":"stop"}]}'
    stream = raw(f"data: {half % entry}\n\n", f"data: {rest}\n\n", "data: [DONE]\n\n")
    async with gateway_to(Provider(stream)) as http:
        assert await ask(http, True, logprobs=True) == (200, "😀", None)
    refusal = Script([rb'{"error":{"message":"bad \ud83d char"}}'], 400, {"content-type": "application/json"})
    async with gateway_to(Provider(refusal)) as http:
        response = await http.post(CHAT, json=ASK)
    assert (response.status_code, response.json()["error"]["message"]) == (400, "bad \ufffd char")


async def test_what_the_gateway_needs_is_checked() -> None:
    """The gateway refuses what it could not serve, without a request to the server."""
    provider = Provider()
    wrong: list[dict[str, Any]] = [
        {"messages": []},
        {"messages": "Hello"},
        {"messages": ["Hello"]},
        {"n": 0},
        {"n": 129},
        {"stream": "yes"},
        {"model": 5},
        {"stream": True, "stream_options": 1},
    ]
    async with gateway_to(provider) as http:
        for body in wrong:
            response = await http.post(CHAT, json=ASK | body)
            assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
    assert provider.chat_requests == []


async def test_a_fallback_that_does_not_honour_a_parameter_is_skipped() -> None:
    """A fallback on the token lane does not get a request that only a server of the chat lane can judge."""
    bad, good = Provider(error_response(500)), Provider()
    async with bad, good:
        nodes = [node_of(bad), saying("Hi", model="tokens", peer="tokens"), node_of(good, "good")]
        settings = Settings(access_log=False, fallbacks={"mock": ("tokens", "good")})
        async with gateway(*nodes, settings=settings, limits=LIMITS) as url:
            async with httpx.AsyncClient(base_url=url, timeout=20) as http:
                assert await ask(http, True, **PASSED["audio"]) == (200, TEXT, None)
                assert await ask(http, True) == (200, "Hi", None)


async def test_slow_first_token() -> None:
    """A provider whose first token arrives within the timeout gets no second request."""
    moment = asyncio.Event()
    provider = Provider(delayed(moment))
    async with gateway_to(provider) as http:
        request = asyncio.create_task(ask(http, True))
        async with asyncio.timeout(5):
            while not provider.chat_requests:
                await asyncio.sleep(0)
        moment.set()
        assert await request == (200, TEXT, None)
    assert len(provider.chat_requests) == 1


async def test_client_disconnects() -> None:
    """A client that disconnects closes the connection to the provider."""
    provider = Provider(stalled(2))
    async with gateway_to(provider) as http:
        async with http.stream("POST", CHAT, json=ASK | {"stream": True}) as response:
            await anext(response.aiter_bytes())
        async with asyncio.timeout(5):
            await provider.chat_requests[0].disconnected.wait()


async def test_flapping_provider() -> None:
    """A provider that fails half of the time is mostly avoided while it fails, and used again afterwards."""
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
                flapping.set_scripts(error_response(500) if int(now) % 10 < 5 else answer())
                assert await chat(sessions) == TEXT
            failed = sum(1 for request in flapping.chat_requests if request is not None)
            # Half of 600 without a breaker; it opens after three failures, then allows one request per cooldown.
            bad = next(row for row in remotes.remotes if row.peer == nodes[0].peer)
            flapping.set_scripts(answer())
            now += 60
            before = len(flapping.chat_requests)
            for _ in range(20):
                assert await chat(sessions) == TEXT
            assert len(flapping.chat_requests) - before == 10
            assert bad.deployment("mock").breaker.state(now) == "closed"
            assert failed < 300


@pytest.mark.parametrize(("spec", "at_once"), [({}, 400), ({"concurrency": 3}, 3)])
async def test_requests_are_limited_only_by_the_operator(spec: dict[str, Any], at_once: int) -> None:
    """With default settings none of 400 requests to one server waits or is refused; `concurrency` limits them."""
    release = asyncio.Event()
    async with Provider(delayed(release)) as provider:
        async with RemoteManager([node_of(provider, **spec)]) as remotes:
            await remotes.ready()
            sessions = SessionManager(remotes)
            asked = [asyncio.create_task(chat(sessions)) for _ in range(400 if at_once == 400 else 10)]
            while len(provider.chat_requests) < at_once:
                await asyncio.sleep(0.01)
            assert len(provider.chat_requests) == at_once
            release.set()
            assert set(await asyncio.gather(*asked)) == {TEXT}
            assert len(provider.chat_requests) == len(asked)


async def chat(sessions: SessionManager) -> str:
    parts: list[str] = []
    async with sessions.session("mock") as session:
        await session.chat(
            ChatRequest(model="mock", body={"messages": ASK["messages"]}), lambda delta: parts.append(delta.text)
        )
    return "".join(parts)


async def test_key_is_not_reported() -> None:
    """The API key that a provider repeats is not part of the error."""
    provider = Provider(error_response(401, "Incorrect API key provided: sk-very-secret"))
    async with provider:
        node = OpenAIProtocol(
            NodeSpec(url=provider.url, kind="openai", models={"mock": "model"}, api_key="sk-very-secret")
        )
        async with RemoteManager([node]) as remotes:
            await remotes.ready()
            with pytest.raises(SubnetError) as caught:
                await chat(SessionManager(remotes, limits=LIMITS))
    assert provider.chat_requests[0].headers["Authorization"] == "Bearer sk-very-secret"
    assert "sk-very-secret" not in str(caught.value)
