"""OpenAI-compatible servers as nodes: their responses become deltas, and their failures become errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet.chat import ChatDelta, ChatRequest, ChatUsage
from subnet.errors import (
    ContentRefused,
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    NodeBusy,
    NodeError,
    NodeLost,
    RateLimited,
    SubnetError,
    Unauthorized,
    WireError,
)
from tests.chat_node import HELLO, Recorder, chat, chat_scripted, node
from tests.provider import (
    TEXT,
    Provider,
    RecordedRequest,
    Script,
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
    message,
    pieces,
    raw,
    split,
    stalled,
    truncated,
    unresponsive,
)

PIECES = len(pieces(TEXT))
USED = ChatUsage(prompt_tokens=7, completion_tokens=PIECES)


# A server without faults.


async def test_response_becomes_deltas() -> None:
    """A streamed response becomes text deltas, one finish reason at the end, and usage."""
    result = await chat_scripted(answer())
    assert result.text() == TEXT
    assert sum(bool(delta.text) for delta in result.deltas) == PIECES
    assert result.finishes() == ["stop"]
    assert result.deltas[-1].finish_reason == "stop"
    assert result.usage == USED


async def test_request_body() -> None:
    """A request asks for streaming and usage, uses the server's model name, and omits nulls."""
    async with Provider() as provider, node(provider.url, models={"ours": "theirs"}) as protocol:
        await chat(
            protocol, model="ours", temperature=0, top_k=5, max_completion_tokens=9, something=["new"], stop=None
        )
        assert provider.chat_requests[0].body == {
            "messages": HELLO,
            "model": "theirs",
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "top_k": 5,
            "max_completion_tokens": 9,
            "something": ["new"],
        }


async def test_request_body_is_not_modified() -> None:
    """The body of a request is not modified, because other attempts share it."""
    body = {"messages": HELLO, "max_completion_tokens": 5, "seed": 1}
    async with Provider() as provider, node(provider.url, kind="ollama") as protocol:
        await protocol.rpc_chat(ChatRequest(model="model", body=body, prefix="x", choices=(1,)), lambda delta: None)
    assert body == {"messages": HELLO, "max_completion_tokens": 5, "seed": 1}
    assert HELLO == [{"role": "user", "content": "Hello"}]


async def test_deltas_have_the_numbers_of_the_requested_choices() -> None:
    """Deltas have the numbers of the requested choices, although the server counts from 0."""

    def reply(request: RecordedRequest) -> Script:
        assert request.body["n"] == 2
        return events(
            *(
                chunk({"content": text}, finish, index)
                for index, text, finish in [(0, "a", None), (1, "b", None), (1, "", "length"), (0, "", "stop")]
            )
        )

    async with Provider(reply) as provider, node(provider.url) as protocol:
        result = await chat(protocol, choices=(3, 5))
    assert (result.text(3), result.finishes(3)) == ("a", ["stop"])
    assert (result.text(5), result.finishes(5)) == ("b", ["length"])


# Servers that frame in their own way.


@pytest.mark.parametrize(
    "script",
    [
        answer(crlf=True),
        answer(done=False),
        answer(done=False, usage=False),
        answer(finish=None),
        split(answer(), 1),
        split(answer(crlf=True), 7),
        Script([b": alive\n\n", *(part for step in answer().steps for part in (step, b": alive\n\n"))]),
        Script([b'event: ping\ndata: {"type": "ping"}\n\n', event("ping"), event(""), event({}), *answer().steps]),
        Script([*answer().steps[:-1], b"data: [DONE]"]),
        raw(*(step for step in answer().steps if isinstance(step, bytes)), headers={"content-type": "text/plain"}),
    ],
    ids=[
        "crlf",
        "no-done",
        "done-nor-usage",
        "no-finish",
        "bytes",
        "crlf-split",
        "comments",
        "pings",
        "no-blank",
        "plain",
    ],
)
async def test_every_framing_is_read(script: Script) -> None:
    """A response is read completely, and only once, in every form of framing."""
    result = await chat_scripted(script)
    assert (result.text(), result.finishes()) == (TEXT, ["stop"])


async def test_keep_alives() -> None:
    """Comments, pings and chunks without choices become keep-alives of a choice that is not finished."""
    ping = b": OPENROUTER PROCESSING\n\n"
    result = await chat_scripted(Script([ping, event({"choices": []}), *answer().steps[:-1], ping, answer().steps[-1]]))
    assert [delta.tokens for delta in result.deltas[:2]] == [0, 0]
    assert result.deltas[-1].finish_reason == "stop"


async def test_response_that_is_not_streamed() -> None:
    """A response that is not streamed becomes deltas with text, reasoning, tool calls and usage."""
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    result = await chat_scripted(json_response(message(finish="tool_calls", reasoning_content="hm", tool_calls=calls)))
    assert (result.text(), result.reasoning(), result.calls()) == (TEXT, "hm", [("f", "{}")])
    assert (result.finishes(), result.usage) == (["tool_calls"], USED)


@settings(max_examples=10)
@given(size=st.integers(1, 40))
async def test_any_split_of_the_bytes(size: int) -> None:
    """A response is the same however its bytes are split, also within a character."""
    result = await chat_scripted(split(answer("Grüße, 世界 🙂!"), size))
    assert result.text() == "Grüße, 世界 🙂!"


# Failures.


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        (connection_reset(), NodeLost, ""),
        (cut_off(after=3), NodeLost, "One two three"),
        (truncated(after=3), NodeLost, "One two three"),
        (raw(), NodeLost, ""),
        (events(), NodeError, ""),
        (malformed(after=2), WireError, "One two"),
        (raw(event("[1]")), WireError, ""),
        (raw(event({"choices": {}, "usage": 1})), NodeLost, ""),
        (raw(event({"choices": "x"})), WireError, ""),
        (raw(event({"choices": [1]})), WireError, ""),
        (raw(event(chunk("text"))), WireError, ""),
        (raw(event(chunk({"content": 1}))), WireError, ""),
        (raw(event(chunk({"content": [1]}))), WireError, ""),
        (raw(event(chunk({"content": "x"}, index=1))), WireError, ""),
        (raw(event('{"choices": ' + "[" * 100_000)), WireError, ""),
        (raw(event('{"choices": [{"delta": {"content": ' + '[{"type": "a", "a": ' * 300 + "1")), WireError, ""),
        (
            json_response(
                {"choices": [chunk(finish="error", error={"message": "slow down", "code": 429})["choices"][0]]}
            ),
            RateLimited,
            "",
        ),
        (raw(event(chunk({"content": "x"}, index=-1))), WireError, ""),
        (error_event(2, {"message": "Provider disconnected", "code": 502}), NodeError, "One two"),
        (error_event(2, {"message": "slow down", "code": 429}), RateLimited, "One two"),
        (events(*(chunk({"content": "x", f"x{number}": 1}) for number in range(300))), WireError, "x" * 256),
        (raw(event({"message": "gone"}, name="error")), NodeError, ""),
        (raw(event("oh no", name="error")), NodeError, ""),
        (raw(event([{"error": {"code": 503, "message": "The model is overloaded."}}])), NodeBusy, ""),
        (
            events(chunk({"content": "x"}), {**chunk({}, "error"), "error": {"code": 500, "message": "oh"}}),
            NodeError,
            "x",
        ),
        (events(chunk({"content": "x"}), chunk(finish="insufficient_system_resource")), NodeError, "x"),
        (events(chunk({"content": "x"}), chunk(finish="abort")), NodeError, "x"),
        (error_response(500), NodeError, ""),
        (error_response(503), NodeError, ""),
        (error_response(429, retry_after=2), RateLimited, ""),
        (error_response(401), Unauthorized, ""),
        (error_response(400, param="stop"), InvalidRequest, ""),
        (error_response(400, code="context_length_exceeded"), ContextLengthExceeded, ""),
        (error_response(400, code="content_policy_violation"), ContentRefused, ""),
        (json_response({"error": {"message": "no", "type": "invalid_request_error"}}), InvalidRequest, ""),
        (json_response({"choices": []}), NodeError, ""),
        (json_response([]), WireError, ""),
    ],
)
async def test_failures_after_partial_text(script: Script, error: type[SubnetError], text: str) -> None:
    """A failure raises its error after the text received so far, without a finish reason or a retry."""
    result = Recorder()
    async with Provider(script) as provider, node(provider.url) as protocol:
        with pytest.raises(error) as caught:
            await protocol.rpc_chat(ChatRequest(model="model", body={"messages": HELLO}), result.emit)
        assert len(provider.chat_requests) == 1
    assert type(caught.value) is not EngineFailed
    assert result.text() == text
    assert result.finishes() == []


async def test_connection_lost_after_the_finish_reason() -> None:
    """A connection that is lost after all finish reasons does not fail the request."""
    steps = [step for step in answer(usage=False, done=False).steps if isinstance(step, bytes)]
    script = Script([*steps, *cut_off(after=0).steps[1:]])
    result = await chat_scripted(script)
    assert (result.text(), result.finishes(), result.usage) == (TEXT, ["stop"], None)


async def test_content_after_a_finish_reason_is_kept() -> None:
    """A finish reason is not the end: some servers send one in each chunk, or content after it. The last one counts."""
    result = await chat_scripted(
        events(chunk({"content": "x"}, "stop"), chunk({"content": "y"}), chunk(finish="length"))
    )
    assert (result.text(), result.finishes()) == ("xy", ["length"])


@pytest.mark.parametrize("make", [unresponsive, delayed, lambda until: stalled(after=2, until=until)])
async def test_slow_server_does_not_time_out(make: Callable[[asyncio.Event], Script]) -> None:
    """A slow server does not time out in the protocol, which leaves timeouts to the session."""
    until = asyncio.Event()
    async with Provider(make(until)) as provider, node(provider.url) as protocol:
        asking = asyncio.create_task(chat(protocol))
        while not provider.chat_requests:
            await asyncio.sleep(0)
        until.set()
        assert (await asking).text() == TEXT


async def test_cancelling_closes_the_connection() -> None:
    """Cancelling a request closes its connection, and the node stays usable."""
    two = asyncio.Event()
    result = Recorder(lambda delta: two.set() if delta.text == " two" else None)
    async with Provider(stalled(after=2), answer()) as provider, node(provider.url) as protocol:
        asking = asyncio.create_task(
            protocol.rpc_chat(ChatRequest(model="model", body={"messages": HELLO}), result.emit)
        )
        await two.wait()
        assert (await protocol.rpc_info()).running == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(provider.chat_requests[0].disconnected.wait(), 5)
        assert (await protocol.rpc_info()).running == 0
        assert (await chat(protocol)).text() == TEXT
    assert result.text() == "One two"


async def test_error_of_the_sink_closes_the_connection() -> None:
    """An error of the sink closes the connection, and is raised unchanged."""

    def refuse_it(delta: ChatDelta) -> None:
        if delta.text:
            raise LookupError("not this")

    async with Provider(stalled(after=2)) as provider, node(provider.url) as protocol:
        with pytest.raises(LookupError):
            await protocol.rpc_chat(ChatRequest(model="model", body={"messages": HELLO}), refuse_it)
        await asyncio.wait_for(provider.chat_requests[0].disconnected.wait(), 5)


# Several choices.


async def test_server_that_ignores_n() -> None:
    """Choices that a server leaves out are requested separately with their own seeds, from then on at once."""

    def reply(request: RecordedRequest) -> Script:
        return answer(f"seed {request.body['seed']}")

    async with Provider(reply) as provider, node(provider.url) as protocol:
        result = await chat(protocol, choices=(0, 1, 2), seed=5)
        assert [result.text(choice) for choice in (0, 1, 2)] == ["seed 5", "seed 6", "seed 7"]
        assert [result.finishes(choice) for choice in (0, 1, 2)] == [["stop"]] * 3
        assert result.usage == ChatUsage(prompt_tokens=7, completion_tokens=6)
        assert [request.body.get("n") for request in provider.chat_requests] == [3, None, None]
        await chat(protocol, choices=(0, 1), seed=5)
        assert [request.body.get("n") for request in provider.chat_requests[3:]] == [None, None]


async def test_server_that_rejects_n() -> None:
    """Choices are requested separately from a server that rejects `n`."""

    def reply(request: RecordedRequest) -> Script:
        return (
            error_response(400, "Only one completion choice is allowed", param="n") if "n" in request.body else answer()
        )

    async with Provider(reply) as provider, node(provider.url) as protocol:
        result = await chat(protocol, choices=(0, 1))
        assert [result.text(choice) for choice in (0, 1)] == [TEXT, TEXT]
        assert result.usage == ChatUsage(prompt_tokens=7, completion_tokens=2 * PIECES)
        assert len(provider.chat_requests) == 3


async def test_separate_choices_fail_together() -> None:
    """The first error of separately requested choices cancels the others, also on the server."""

    def reply(request: RecordedRequest) -> Script:
        return stalled(after=1) if request.body["seed"] == 0 else error_response(429)

    async with Provider(reply) as provider, node(provider.url, kind="ollama") as protocol:
        with pytest.raises(RateLimited):
            await chat(protocol, choices=(0, 1), seed=0)
        for request in provider.chat_requests:
            if request.body["seed"] == 0:
                await asyncio.wait_for(request.disconnected.wait(), 5)
        assert (await protocol.rpc_info()).running == 0


async def test_usage_is_unknown_if_a_part_is_unknown() -> None:
    """Usage is unknown if one of several requests does not report it."""
    scripts = [answer(), answer(usage=False)]
    async with Provider(*scripts) as provider, node(provider.url, kind="tgi", models={"model": "m"}) as protocol:
        assert (await chat(protocol, choices=(0, 1))).usage is None


async def test_server_that_rejects_stream_options() -> None:
    """A request is repeated without `stream_options` if the server rejects them, and later ones omit them."""

    def reply(request: RecordedRequest) -> Script:
        if "stream_options" in request.body:
            return error_response(422, "extra fields are not permitted: stream_options")
        return answer(usage=False)

    async with Provider(reply) as provider, node(provider.url) as protocol:
        assert (await chat(protocol)).text() == TEXT
        assert (await chat(protocol)).text() == TEXT
        assert ["stream_options" in request.body for request in provider.chat_requests] == [True, False, False]


async def test_full_node_gets_no_request() -> None:
    """A request for more choices than the node has free slots is not sent."""
    async with Provider() as provider, node(provider.url, concurrency=1) as protocol:
        with pytest.raises(NodeBusy):
            await chat(protocol, choices=(0, 1))
        assert provider.chat_requests == []
        assert (await chat(protocol)).text() == TEXT


async def test_node_has_no_limit_by_default() -> None:
    """Without `concurrency`, any number of choices is requested at once."""
    release = asyncio.Event()
    async with Provider(delayed(release)) as provider, node(provider.url) as protocol:
        assert not (await protocol.rpc_info()).limited
        asked = [asyncio.create_task(chat(protocol)) for _ in range(200)]
        while len(provider.chat_requests) < 200:
            await asyncio.sleep(0.01)
        release.set()
        assert {each.text() for each in await asyncio.gather(*asked)} == {TEXT}


async def test_token_calls_are_rejected() -> None:
    """A server on the chat lane rejects requests for tokens and artefacts without any HTTP request."""
    async with Provider() as provider, node(provider.url) as protocol:
        with pytest.raises(InvalidRequest):
            protocol.rpc_inference_stream(None)  # type: ignore[arg-type]
        with pytest.raises(NodeError):
            await protocol.rpc_artefact("00")
        assert provider.requests == []
