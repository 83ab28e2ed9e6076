"""Models on the chat lane, through the gateway: forwarding, aliases and fallbacks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from adapter.config import Settings
from subnet import Limits
from subnet.chat import CallDelta, ChatDelta, ChatRequest, ChatUsage
from subnet.errors import (
    ContentRefused,
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    NodeBusy,
    NodeLost,
    RateLimited,
    Unauthorized,
)
from subnet.node_info import NodeInfo
from subnet.protocols.base import Protocol
from subnet.protocols.mock import MockProtocol, Pause
from subnet.protocols.mock_chat import MockChatProtocol
from tests.fakes import ASK, events_of, gateway, saying

CHAT = "/v1/chat/completions"
USED = ChatUsage(prompt_tokens=7, completion_tokens=3, cached_tokens=2, reasoning_tokens=1)


@asynccontextmanager
async def client(*nodes: Protocol, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        gateway(*nodes, settings=Settings(access_log=False, **settings)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        async with asyncio.timeout(5):
            while len((await http.get("/readyz")).json().get("models", ())) < len(nodes):
                pass
        yield http


def chat(model: str, *script: Any, **options: Any) -> MockChatProtocol:
    return MockChatProtocol(script, peer=model, models=[model], **options)


async def test_all_contents_of_responses() -> None:
    """Reasoning, text, logprobs, refusals, calls and usage of a chat server are returned in OpenAI's format."""
    logprob = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    script = [
        ChatDelta(0, reasoning="Hm."),
        ChatDelta(0, "Hi", logprobs=[logprob]),
        ChatDelta(0, refusal="No."),
        ChatDelta(0, calls=(CallDelta(0, "call_1", "look", '{"x"'),)),
        ChatDelta(0, calls=(CallDelta(0, arguments=":1}"),)),
        ChatDelta(0, finish_reason="tool_calls"),
    ]
    ask = ASK | {"logprobs": True, "stream_options": {"include_usage": True}, "stream": True}
    async with client(chat("mock", *script, usage=USED)) as http:
        whole = (await http.post(CHAT, json=ASK | {"logprobs": True})).json()
        events = events_of((await http.post(CHAT, json=ask)).content)
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}}
    assert whole["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi",
                "refusal": "No.",
                "reasoning_content": "Hm.",
                "tool_calls": [call],
            },
            "logprobs": {"content": [logprob], "refusal": None},
            "finish_reason": "tool_calls",
        }
    ]
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["total_tokens"]) == (7, 10)
    assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in events[:-2]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hi"
    assert "".join(delta.get("refusal") or "" for delta in deltas) == "No."
    assert events[-2]["usage"] == whole["usage"]


async def test_request_fields_are_forwarded() -> None:
    """A chat server gets all fields of the request, unknown ones too, except those that the gateway handles itself."""
    node = chat("mock", "Hi")
    extra = {"provider": {"order": ["a"]}, "temperature": 0.5, "seed": None, "n": 2, "stream": True, "priority": 1}
    async with client(node) as http:
        answer = await http.post(CHAT, json=ASK | extra)
    assert "x-ignored-params" not in answer.headers
    assert node.requests[0].body == {
        "messages": ASK["messages"],
        "provider": {"order": ["a"]},
        "temperature": 0.5,
    }
    assert node.requests[0].choices == (0, 1)


async def test_halves_of_surrogate_pairs_are_repaired() -> None:
    """A server gets U+FFFD for an escaped half, wherever it is, and a header tells the client."""
    node = chat("mock", "Hi")
    messages = [{"role": "user", "content": "cut \ud83d", "\ude00": ["\ud83d\ud83d\ude00"]}]
    async with client(node) as http:
        answer = await http.post(CHAT, content=json.dumps(ASK | {"messages": messages}))
    assert answer.headers["x-body-repaired"] == "unpaired-surrogates"
    [request] = node.requests
    assert request.body["messages"] == [{"role": "user", "content": "cut \ufffd", "\ufffd": ["\ufffd😀"]}]


async def test_failover() -> None:
    """OpenAI's client receives one complete answer although the chat server is lost in the middle."""
    nodes = chat("mock", "Once ", "upon ", NodeLost("x")), MockChatProtocol(["Once ", "upon ", "a time"], peer="b")
    async with gateway(*nodes) as url:
        openai_client = AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
        async with (
            openai_client,
            await openai_client.chat.completions.create(
                model="mock", messages=ASK["messages"], seed=1, stream=True
            ) as stream,
        ):
            said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == "Once upon a time"


async def test_endpoints_that_need_a_tokenizer() -> None:
    """On the chat lane, endpoints and options that need a tokenizer are rejected."""
    async with client(chat("mock", "Hi")) as http:
        for path, ask in (
            ("/tokenize", {"model": "mock", "prompt": "Hi"}),
            (f"{CHAT}/render", ASK),
        ):
            error = (await http.post(path, json=ask)).json()["error"]
            assert (error["param"], error["code"]) == ("model", "unsupported_model")
        error = (await http.post(CHAT, json=ASK | {"return_token_ids": True})).json()["error"]
        assert error["param"] == "return_token_ids"


async def test_image_parts() -> None:
    """Images are forwarded unchanged on the chat lane, whose servers judge them; the token lane rejects them."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]
    tokens, nodes = saying("Hi", model="tokens", peer="tokens"), [chat("sees", "A cat"), chat("unknown", "A dog")]
    async with client(*nodes, tokens) as http:
        for node in nodes:
            assert (await http.post(CHAT, json={"model": node.peer, "messages": messages})).status_code == 200
            assert node.requests[0].body["messages"] == messages
        error = (await http.post(CHAT, json={"model": "tokens", "messages": messages})).json()["error"]
    assert error["param"] == "messages[0].content[1].type"
    assert tokens.requests == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("no", param="top_k"), 400, "invalid_value"),
        (ContentRefused("no"), 400, "content_policy_violation"),
        (ContextLengthExceeded("too long"), 400, "context_length_exceeded"),
        (RateLimited("slow", retry_after=7), 429, "rate_limit_exceeded"),
        (NodeBusy("full"), 503, "engine_overloaded"),
        (Unauthorized("key"), 502, "node_refused"),
        (EngineFailed("x"), 503, "node_failed"),
    ],
)
async def test_errors(error: Exception, status: int, code: str) -> None:
    """An error of a chat server gets the matching status and OpenAI's error code."""
    async with client(chat("mock", error)) as http:
        answer = await http.post(CHAT, json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    if status == 429:
        assert answer.headers["retry-after"] in ("6", "7")


async def test_a_lost_answer_ends_with_an_error() -> None:
    """If a lost answer cannot be continued, the stream ends with one error and without [DONE]."""
    async with client(chat("mock", "Once ", NodeLost("x"))) as http:
        body = (await http.post(CHAT, json=ASK | {"stream": True})).content
    assert b"[DONE]" not in body
    assert body.count(b'"error"') == 1


async def test_aliases() -> None:
    """An alias is listed and can be requested on every endpoint; the answer has the name of the model behind it."""
    settings = {"aliases": {"gpt-4o-mini": "mock"}, "default_model": "mock"}
    async with client(saying("Hi"), **settings) as http:
        assert {model["id"] for model in (await http.get("/v1/models")).json()["data"]} == {"mock", "gpt-4o-mini"}
        assert (await http.get("/v1/models/gpt-4o-mini")).json()["id"] == "gpt-4o-mini"
        for name in ("gpt-4o-mini", "whatever"):
            assert (await http.post(CHAT, json=ASK | {"model": name})).json()["model"] == "mock"
        answer = await http.post("/v1/completions", json={"model": "gpt-4o-mini", "prompt": "x"})
        assert answer.json()["model"] == "mock"


FAILS = [
    EngineFailed("x"),
    NodeBusy("full", retry_after=30),
    RateLimited("slow", retry_after=30),
    ContextLengthExceeded("long"),
    Unauthorized("key"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error", FAILS, ids=lambda error: error.code)
async def test_fallbacks(error: Exception, stream: bool) -> None:
    """If a model fails, its fallback answers under the fallback's own name, streamed or not."""
    other = saying("Hi", model="other", peer="other")
    async with client(chat("mock", error), other, fallbacks={"mock": ("gone", "other")}) as http:
        answer = await http.post(CHAT, json=ASK | {"stream": stream})
    assert answer.status_code == 200
    if stream:
        assert {chunk["model"] for chunk in events_of(answer.content)[:-1]} == {"other"}
    else:
        assert (answer.json()["model"], answer.json()["choices"][0]["message"]["content"]) == ("other", "Hi")


async def test_a_fallback_with_a_longer_context() -> None:
    """A prompt that is too long for a model is sent to its fallback, without a request to the first model's node."""
    small = saying("Hi", model="small", peer="small", context_length=8)
    async with client(small, saying("Hello", model="large", peer="large"), fallbacks={"small": ("large",)}) as http:
        answer = (await http.post(CHAT, json=ASK | {"model": "small"})).json()
    assert (answer["model"], small.requests) == ("large", [])


async def test_a_fallback_that_fails() -> None:
    """If a fallback fails after its first token, the stream ends with the fallback's error."""
    small = saying("Hi", model="small", peer="small", context_length=8)
    large = MockProtocol([*b"He", EngineFailed("x")], model="large", peer="large")
    async with client(small, large, fallbacks={"small": ("large",)}) as http:
        answer = await http.post(CHAT, json=ASK | {"model": "small", "stream": True})
    assert events_of(answer.content)[-1]["error"]["code"] == "node_failed"


@pytest.mark.parametrize("error", [ContentRefused("no"), InvalidRequest("no", param="top_k")])
async def test_request_errors_have_no_fallback(error: Exception) -> None:
    """A request that was refused for its content, or is invalid, is not sent to the fallback."""
    other = chat("other", "Hi")
    async with client(chat("mock", error), other, fallbacks={"mock": ("other",)}) as http:
        assert (await http.post(CHAT, json=ASK)).status_code == 400
    assert other.requests == []


async def test_error_of_the_requested_model_is_reported() -> None:
    """If the fallback fails, too, the response has the error of the requested model."""
    other = chat("other", InvalidRequest("a trailing assistant message", param="messages"))
    async with client(chat("mock", EngineFailed("x")), other, fallbacks={"mock": ("other",)}) as http:
        answer = await http.post(CHAT, json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "node_failed")
    assert len(other.requests) == 1


async def test_a_fallback_does_not_continue_an_answer() -> None:
    """A fallback whose answer is another does not continue one of which text was already sent."""
    other = chat("other", "Hi")
    async with client(chat("mock", "Once ", EngineFailed("x")), other, fallbacks={"mock": ("other",)}) as http:
        body = (await http.post(CHAT, json=ASK | {"stream": True})).content
    assert b"[DONE]" not in body
    assert b"Hi" not in body
    assert len(other.requests) == 1


class _Returning(MockChatProtocol):
    """Node that is lost after its first delta, fails its next ten health checks, and then answers again."""

    def __init__(self) -> None:
        super().__init__(self._script, peer="mock")
        self._failing_checks = 0

    def _script(self, request: ChatRequest) -> list[str | Exception]:
        if len(self.requests) > 1:
            return ["Once ", "upon"]
        self._failing_checks = 10
        return ["Once ", NodeLost("gone")]

    async def rpc_info(self) -> NodeInfo:
        if self._failing_checks:
            self._failing_checks -= 1
            raise NodeLost("gone")
        return await super().rpc_info()


@pytest.mark.parametrize(("stream", "answered", "asked"), [(True, "mock", 2), (False, "other", 1)])
async def test_a_streamed_answer_waits_for_its_own_model(stream: bool, answered: str, asked: int) -> None:
    """A streamed answer that a fallback cannot continue waits for its own node; one that is not streamed uses the
    fallback at once.
    """
    node, settings = _Returning(), Settings(access_log=False, fallbacks={"mock": ("other",)})
    async with (
        gateway(node, chat("other", "Hi"), settings=settings, limits=Limits(queue_timeout=60.0)) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        async with asyncio.timeout(5):
            while len((await http.get("/readyz")).json().get("models", ())) < 2:
                pass
        body = (await http.post(CHAT, json=ASK | {"stream": stream})).content
    events = events_of(body) if stream else [json.loads(body)]
    assert {event["model"] for event in events if event != "[DONE]"} == {answered}
    assert (b"[DONE]" in body, len(node.requests)) == (stream, asked)


async def test_a_disconnect_cancels_the_fallback() -> None:
    """A client that disconnects cancels the work on the server of the fallback model."""
    other = chat("other", "Once ", Pause(None))
    async with (
        gateway(chat("mock", EngineFailed("x")), other, settings=Settings(fallbacks={"mock": ("other",)})) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as openai_client,
    ):
        stream = await openai_client.chat.completions.create(model="mock", messages=ASK["messages"], stream=True)
        await anext(stream.__aiter__())
        await stream.close()
        async with asyncio.timeout(5):
            while other.open:
                await asyncio.sleep(0)
    assert other.cancelled == 1


async def test_typed_errors() -> None:
    """OpenAI's client raises RateLimitError with the server's Retry-After."""
    async with (
        gateway(chat("mock", RateLimited("slow", retry_after=30))) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as openai_client,
    ):
        with pytest.raises(openai.RateLimitError) as caught:
            await openai_client.chat.completions.create(model="mock", messages=ASK["messages"])
    assert int(caught.value.response.headers["retry-after"]) > 20
