"""Any OpenAI-compatible server as a node: whatever it sends becomes what OpenAI would have sent."""

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
from tests.chat_node import HELLO, Heard, heard_from, heard_of, node
from tests.provider import (
    TEXT,
    Provider,
    Script,
    Seen,
    answer,
    broken,
    chunk,
    cut,
    ended,
    event,
    events,
    late,
    malformed,
    message,
    pieces,
    raw,
    refuse,
    reset,
    silent,
    split,
    stalled,
    whole,
)

PIECES = len(pieces(TEXT))
USED = ChatUsage(prompt_tokens=7, completion_tokens=PIECES)


# A good server.


async def test_an_answer_comes_as_deltas() -> None:
    """Its text in pieces, one finish at the end, and what was used."""
    heard = await heard_from(answer())
    assert heard.text() == TEXT
    assert sum(bool(delta.text) for delta in heard.deltas) == PIECES
    assert heard.finishes() == ["stop"]
    assert heard.deltas[-1].finish_reason == "stop"
    assert heard.usage == USED


async def test_the_request_is_streamed_and_its_usage_asked_for() -> None:
    """With the server's name of the model; what else the body has passes as it is, and nulls do not."""
    async with Provider() as provider, node(provider.url, models={"ours": "theirs"}) as protocol:
        await heard_of(
            protocol, model="ours", temperature=0, top_k=5, max_completion_tokens=9, something=["new"], stop=None
        )
        assert provider.chats[0].body == {
            "messages": HELLO,
            "model": "theirs",
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "top_k": 5,
            "max_completion_tokens": 9,
            "something": ["new"],
        }


async def test_the_body_of_a_request_is_not_written_to() -> None:
    """It is shared with other attempts."""
    body = {"messages": HELLO, "max_completion_tokens": 5, "seed": 1}
    async with Provider() as provider, node(provider.url, kind="ollama") as protocol:
        await protocol.rpc_chat(ChatRequest(model="model", body=body, prefix="x", choices=(1,)), lambda delta: None)
    assert body == {"messages": HELLO, "max_completion_tokens": 5, "seed": 1}
    assert HELLO == [{"role": "user", "content": "Hello"}]


async def test_deltas_have_the_numbers_of_their_choices() -> None:
    """The server counts from 0, whichever are asked for."""

    def reply(seen: Seen) -> Script:
        assert seen.body["n"] == 2
        return events(
            *(
                chunk({"content": text}, finish, index)
                for index, text, finish in [(0, "a", None), (1, "b", None), (1, "", "length"), (0, "", "stop")]
            )
        )

    async with Provider(reply) as provider, node(provider.url) as protocol:
        heard = await heard_of(protocol, choices=(3, 5))
    assert (heard.text(3), heard.finishes(3)) == ("a", ["stop"])
    assert (heard.text(5), heard.finishes(5)) == ("b", ["length"])


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
async def test_a_whole_answer_is_heard_however_it_is_framed(script: Script) -> None:
    """Text and one finish, none of it twice."""
    heard = await heard_from(script)
    assert (heard.text(), heard.finishes()) == (TEXT, ["stop"])


async def test_comments_are_signs_of_life() -> None:
    """So are pings, and chunks without choices; a choice that ended gives none."""
    ping = b": OPENROUTER PROCESSING\n\n"
    heard = await heard_from(Script([ping, event({"choices": []}), *answer().steps[:-1], ping, answer().steps[-1]]))
    assert [delta.tokens for delta in heard.deltas[:2]] == [0, 0]
    assert heard.deltas[-1].finish_reason == "stop"


async def test_a_server_that_does_not_stream_gives_one_delta() -> None:
    """Text, reasoning, calls and usage, at once."""
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    heard = await heard_from(whole(message(finish="tool_calls", reasoning_content="hm", tool_calls=calls)))
    assert (heard.text(), heard.reasoning(), heard.calls()) == (TEXT, "hm", [("f", "{}")])
    assert (heard.finishes(), heard.usage) == (["tool_calls"], USED)


@settings(max_examples=10)
@given(size=st.integers(1, 40))
async def test_any_split_is_the_same_answer(size: int) -> None:
    """Also inside of characters."""
    heard = await heard_from(split(answer("Grüße, 世界 🙂!"), size))
    assert heard.text() == "Grüße, 世界 🙂!"


# What ends badly.


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        (reset(), NodeLost, ""),
        (cut(after=3), NodeLost, "One two three"),
        (ended(after=3), NodeLost, "One two three"),
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
            whole({"choices": [chunk(finish="error", error={"message": "slow down", "code": 429})["choices"][0]]}),
            RateLimited,
            "",
        ),
        (raw(event(chunk({"content": "x"}, index=-1))), WireError, ""),
        (broken(2, {"message": "Provider disconnected", "code": 502}), NodeError, "One two"),
        (broken(2, {"message": "slow down", "code": 429}), RateLimited, "One two"),
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
        (refuse(500), NodeError, ""),
        (refuse(503), NodeError, ""),
        (refuse(429, retry_after=2), RateLimited, ""),
        (refuse(401), Unauthorized, ""),
        (refuse(400, param="stop"), InvalidRequest, ""),
        (refuse(400, code="context_length_exceeded"), ContextLengthExceeded, ""),
        (refuse(400, code="content_policy_violation"), ContentRefused, ""),
        (whole({"error": {"message": "no", "type": "invalid_request_error"}}), InvalidRequest, ""),
        (whole({"choices": []}), NodeError, ""),
        (whole([]), WireError, ""),
    ],
)
async def test_what_ends_badly_is_told_after_what_was_said(script: Script, error: type[SubnetError], text: str) -> None:
    """One attempt, no finish, and the text until then: the caller decides what comes next."""
    heard = Heard()
    async with Provider(script) as provider, node(provider.url) as protocol:
        with pytest.raises(error) as caught:
            await protocol.rpc_chat(ChatRequest(model="model", body={"messages": HELLO}), heard.emit)
        assert len(provider.chats) == 1
    assert type(caught.value) is not EngineFailed
    assert heard.text() == text
    assert heard.finishes() == []


async def test_what_is_lost_after_the_end_is_no_loss() -> None:
    """Every choice has its finish: the answer is complete, though the connection breaks."""
    steps = [step for step in answer(usage=False, done=False).steps if isinstance(step, bytes)]
    script = Script([*steps, *cut(after=0).steps[1:]])
    heard = await heard_from(script)
    assert (heard.text(), heard.finishes(), heard.usage) == (TEXT, ["stop"], None)


async def test_text_after_the_end_is_not_heard() -> None:
    """Some servers end a choice twice."""
    heard = await heard_from(events(chunk({"content": "x"}, "stop"), chunk({"content": "y"}), chunk(finish="length")))
    assert (heard.text(), heard.finishes()) == ("x", ["stop"])


@pytest.mark.parametrize("make", [silent, late, lambda until: stalled(after=2, until=until)])
async def test_a_slow_server_is_waited_for(make: Callable[[asyncio.Event], Script]) -> None:
    """How long is not for the protocol to say."""
    until = asyncio.Event()
    async with Provider(make(until)) as provider, node(provider.url) as protocol:
        asking = asyncio.create_task(heard_of(protocol))
        while not provider.chats:
            await asyncio.sleep(0)
        until.set()
        assert (await asking).text() == TEXT


async def test_cancelling_ends_the_work_on_the_server() -> None:
    """It sees that the connection was closed; the next request finds the node well."""
    two = asyncio.Event()
    heard = Heard(lambda delta: two.set() if delta.text == " two" else None)
    async with Provider(stalled(after=2), answer()) as provider, node(provider.url) as protocol:
        asking = asyncio.create_task(
            protocol.rpc_chat(ChatRequest(model="model", body={"messages": HELLO}), heard.emit)
        )
        await two.wait()
        assert (await protocol.rpc_info()).running == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(provider.chats[0].gone.wait(), 5)
        assert (await protocol.rpc_info()).running == 0
        assert (await heard_of(protocol)).text() == TEXT
    assert heard.text() == "One two"


async def test_an_error_of_the_listener_ends_the_work_on_the_server() -> None:
    """And is raised as it is."""

    def refuse_it(delta: ChatDelta) -> None:
        if delta.text:
            raise LookupError("not this")

    async with Provider(stalled(after=2)) as provider, node(provider.url) as protocol:
        with pytest.raises(LookupError):
            await protocol.rpc_chat(ChatRequest(model="model", body={"messages": HELLO}), refuse_it)
        await asyncio.wait_for(provider.chats[0].gone.wait(), 5)


# Several choices.


async def test_a_server_that_ignores_n_is_asked_again() -> None:
    """For each choice that is missing, with a seed of its own; from then on so at once."""

    def reply(seen: Seen) -> Script:
        return answer(f"seed {seen.body['seed']}")

    async with Provider(reply) as provider, node(provider.url) as protocol:
        heard = await heard_of(protocol, choices=(0, 1, 2), seed=5)
        assert [heard.text(choice) for choice in (0, 1, 2)] == ["seed 5", "seed 6", "seed 7"]
        assert [heard.finishes(choice) for choice in (0, 1, 2)] == [["stop"]] * 3
        assert heard.usage == ChatUsage(prompt_tokens=7, completion_tokens=6)
        assert [seen.body.get("n") for seen in provider.chats] == [3, None, None]
        await heard_of(protocol, choices=(0, 1), seed=5)
        assert [seen.body.get("n") for seen in provider.chats[3:]] == [None, None]


async def test_a_server_that_refuses_n_is_asked_one_by_one() -> None:
    """It says so by the parameter's name."""

    def reply(seen: Seen) -> Script:
        return refuse(400, "Only one completion choice is allowed", param="n") if "n" in seen.body else answer()

    async with Provider(reply) as provider, node(provider.url) as protocol:
        heard = await heard_of(protocol, choices=(0, 1))
        assert [heard.text(choice) for choice in (0, 1)] == [TEXT, TEXT]
        assert heard.usage == ChatUsage(prompt_tokens=7, completion_tokens=2 * PIECES)
        assert len(provider.chats) == 3


async def test_choices_of_their_own_fail_together() -> None:
    """One that is refused ends the others, on the server, too."""

    def reply(seen: Seen) -> Script:
        return stalled(after=1) if seen.body["seed"] == 0 else refuse(429)

    async with Provider(reply) as provider, node(provider.url, kind="ollama") as protocol:
        with pytest.raises(RateLimited):
            await heard_of(protocol, choices=(0, 1), seed=0)
        for seen in provider.chats:
            if seen.body["seed"] == 0:
                await asyncio.wait_for(seen.gone.wait(), 5)
        assert (await protocol.rpc_info()).running == 0


async def test_usage_is_unknown_where_one_of_several_requests_does_not_tell() -> None:
    """Rather than too little."""
    scripts = [answer(), answer(usage=False)]
    async with Provider(*scripts) as provider, node(provider.url, kind="tgi", models={"model": "m"}) as protocol:
        assert (await heard_of(protocol, choices=(0, 1))).usage is None


async def test_a_server_without_stream_options_is_asked_without() -> None:
    """It says so once, and is remembered."""

    def reply(seen: Seen) -> Script:
        if "stream_options" in seen.body:
            return refuse(422, "extra fields are not permitted: stream_options")
        return answer(usage=False)

    async with Provider(reply) as provider, node(provider.url) as protocol:
        assert (await heard_of(protocol)).text() == TEXT
        assert (await heard_of(protocol)).text() == TEXT
        assert ["stream_options" in seen.body for seen in provider.chats] == [True, False, False]


async def test_a_node_that_is_full_is_not_asked() -> None:
    """By more than it was said to take at once."""
    async with Provider() as provider, node(provider.url, concurrency=1) as protocol:
        with pytest.raises(NodeBusy):
            await heard_of(protocol, choices=(0, 1))
        assert provider.chats == []
        assert (await heard_of(protocol)).text() == TEXT


async def test_tokens_are_for_other_nodes() -> None:
    """A server that takes messages says so, and has no artefacts."""
    async with Provider() as provider, node(provider.url) as protocol:
        with pytest.raises(InvalidRequest):
            protocol.rpc_inference_stream(None)  # type: ignore[arg-type]
        with pytest.raises(NodeError):
            await protocol.rpc_artefact("00")
        assert provider.seen == []
