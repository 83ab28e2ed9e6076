"""Failover on the chat lane: an answer survives the loss of its server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet import Limits, RemoteManager, SessionManager
from subnet.chat import CallDelta, ChatDelta, ChatRequest, ChatText, ChatUsage
from subnet.client.ledger.base import Ledger, record_delta
from subnet.client.ledger.chat import ChatLedger
from subnet.client.resume.chat import Replay, choose_strategy
from subnet.client.resume.token import Diverged
from subnet.errors import (
    ContextLengthExceeded,
    InterTokenTimeout,
    NodeBusy,
    NodeError,
    NodeLost,
    RateLimited,
    WireError,
)
from subnet.node_info import Capabilities
from subnet.protocols.base import Protocol, Timeouts
from subnet.protocols.mock import Pause
from subnet.protocols.mock_chat import ChatStep, MockChatProtocol
from tests.fakes import QUICK

LIMITS = msgspec.structs.replace(QUICK, max_attempts=3)
LOST = NodeLost("the connection broke")
STORY: list[ChatStep] = ["Once ", "upon ", "a ", "time"]
CALLING: list[ChatStep] = [
    ChatDelta(0, reasoning="Let me "),
    ChatDelta(0, reasoning="look."),
    ChatDelta(0, "I look "),
    ChatDelta(0, "it up."),
    ChatDelta(0, calls=(CallDelta(0, "call_1", "look", ""),)),
    ChatDelta(0, calls=(CallDelta(0, arguments='{"x"'),)),
    ChatDelta(0, calls=(CallDelta(0, arguments=": 1}"), CallDelta(1, "call_2", "read", "{}"))),
    ChatDelta(0, finish_reason="tool_calls"),
]


def chat_request(choices: int = 1, **body: Any) -> ChatRequest:
    messages = [{"role": "user", "content": "Tell me a story"}]
    return ChatRequest(model="mock", body={"messages": messages, **body}, choices=tuple(range(choices)))


def test_large_requests_are_measured_by_their_size() -> None:
    """A large request has the beginning of its messages as a hint, and its whole size instead of theirs."""
    messages = [{"role": "user", "content": word * 3000} for word in ("a", "b", "c")] * 20
    small = ChatLedger(ChatRequest(model="mock", body={"messages": messages}, size=100))
    large = ChatLedger(ChatRequest(model="mock", body={"messages": messages}, size=200_000))
    assert bytes(small.routing_hint.prompt.astype("u1")) == msgspec.json.encode(messages)[:4096]
    assert large.routing_hint.prompt.tolist() == small.routing_hint.prompt.tolist()
    assert (large.prompt_size, large.routing_hint.size) == (50_000, 200_000)


@pytest.mark.parametrize("kind", [ChatDelta, ChatText])
def test_text_is_kept_in_few_parts(kind: type[ChatDelta]) -> None:
    """The text of an answer is the same however many parts it came in, and is kept in few of them."""
    ledger = ChatLedger(chat_request())
    for number in range(1000):
        record_delta(ledger.choices, kind(0, f"{number} "))
        if number % 7 == 0:
            record_delta(ledger.choices, ChatDelta(0, reasoning="hm"))
    choice = ledger.choices[0]
    assert "".join(choice.text) == "".join(f"{number} " for number in range(1000))
    assert len(choice.text) < 200


async def answer(
    request: ChatRequest, *nodes: Protocol, limits: Limits = LIMITS
) -> tuple[list[ChatDelta], ChatUsage, Ledger[Any]]:
    deltas: list[ChatDelta] = []
    async with RemoteManager(nodes) as remotes:
        while any(remote.unreachable_reason for remote in remotes.remotes):
            await asyncio.sleep(0)
        async with SessionManager(remotes, limits=limits).session("mock") as session:
            usage = await session.chat(request, deltas.append)
            assert session.ledger is not None
            return deltas, usage, session.ledger


def message(deltas: Sequence[ChatDelta], choice: int = 0) -> tuple[object, ...]:
    """Return reasoning, text, refusal, tool calls and finish reasons as a client assembles them."""
    own = [delta for delta in deltas if delta.choice == choice]
    calls: dict[int, list[str]] = {}
    for delta in own:
        for call in delta.calls:
            calls.setdefault(call.index, []).append(call.name + call.arguments)
    texts = ("".join(getattr(delta, name) for delta in own) for name in ("reasoning", "text", "refusal"))
    ends = [delta.finish_reason for delta in own if delta.finish_reason]
    return (*texts, {index: "".join(parts) for index, parts in calls.items()}, ends)


@pytest.mark.parametrize("script", [STORY, CALLING], ids=["text", "calls"])
async def test_an_interrupted_answer_is_replayed(script: list[ChatStep]) -> None:
    """Wherever a server is lost, the part that another one repeats is skipped, and the client sees one answer."""
    whole, _, _ = await answer(chat_request(seed=1), MockChatProtocol(script))
    for cut in range(len(script)):
        broken, other = MockChatProtocol([*script[:cut], LOST], peer="a"), MockChatProtocol(script, peer="b")
        deltas, _, ledger = await answer(chat_request(seed=1), broken, other)
        assert message(deltas) == message(whole)
        assert ledger.peers == ["a", "b"]


async def test_a_diverging_replay_is_an_error() -> None:
    """A replay that differs from the delivered text raises Diverged, and nothing of the replay is delivered."""
    deltas: list[ChatDelta] = []
    nodes = [MockChatProtocol(["Once ", "upon ", LOST], peer="a"), MockChatProtocol(["Once ", "again"], peer="b")]
    async with RemoteManager(nodes) as remotes:
        await remotes.ready()
        async with SessionManager(remotes, limits=LIMITS).session("mock") as session:
            with pytest.raises(Diverged):
                await session.chat(chat_request(seed=1), deltas.append)
    assert "".join(delta.text for delta in deltas) == "Once upon "


async def test_an_answer_is_continued_by_prefill() -> None:
    """A server that supports prefill continues an interrupted answer that is not deterministic."""
    broken = MockChatProtocol(["Once ", "upon ", LOST], peer="a")
    other = MockChatProtocol(
        ["a ", "time"], peer="b", prefill=True, usage=ChatUsage(prompt_tokens=9, completion_tokens=2)
    )
    deltas, usage, _ = await answer(chat_request(max_tokens=10), broken, other)
    assert message(deltas)[1] == "Once upon a time"
    assert other.requests[0].prefix == "Once upon "
    assert other.requests[0].body["max_tokens"] == 8
    assert usage == ChatUsage(prompt_tokens=7, completion_tokens=4)


@pytest.mark.parametrize(
    "body", [{"response_format": {"type": "json_object"}}, {"tool_choice": "required"}, {"guided_regex": "a+"}]
)
async def test_structured_outputs_are_never_prefilled(body: dict[str, Any]) -> None:
    """A structured output or forced tool call is replayed instead of continued: the server would restart its format."""
    broken = MockChatProtocol(["{", LOST], peer="a")
    other = MockChatProtocol(["{", "}"], peer="b", prefill=True)
    deltas, _, _ = await answer(chat_request(**body), broken, other)
    assert message(deltas)[1] == "{}"
    assert other.requests[0].prefix == ""


async def test_only_unfinished_choices_are_continued() -> None:
    """Choices that were finished before a failover are not requested again."""
    broken = MockChatProtocol(
        [ChatDelta(0, "one"), ChatDelta(1, "two"), ChatDelta(0, finish_reason="stop"), LOST], peer="a"
    )
    other = MockChatProtocol([" more"], peer="b", prefill=True)
    deltas, _, _ = await answer(chat_request(2), broken, other)
    assert (message(deltas)[1], message(deltas, 1)[1]) == ("one", "two more")
    assert [request.choices for request in other.requests] == [(1,)]


async def test_a_stalled_server_is_replaced() -> None:
    """A server that stalls is cancelled, and another one completes the answer."""
    stalled = MockChatProtocol(["Once ", Pause(None)], peer="a")
    deltas, _, ledger = await answer(chat_request(seed=1), stalled, MockChatProtocol(STORY, peer="b"))
    assert message(deltas)[1] == "Once upon a time"
    assert (ledger.peers, stalled.cancelled) == (["a", "b"], 1)


async def test_timeouts_of_a_node_override_the_limits() -> None:
    """Timeouts set on a node's protocol take precedence over the session's limits."""
    node = MockChatProtocol(["Once ", Pause(None)])
    node.timeouts = Timeouts(inter_token=0.05)
    limits = Limits(inter_token_timeout=60, max_attempts=1)
    with pytest.raises(InterTokenTimeout, match=r"sent no token for (0\.1|0\.0) s \(inter_token_timeout\)"):
        await answer(chat_request(), node, limits=limits)
    node = MockChatProtocol([*STORY, Pause(None)])
    node.timeouts = Timeouts(attempt=0.05)
    with pytest.raises(NodeError, match=r"did not finish within 0\.[01] s \(attempt_timeout\)"):
        await answer(chat_request(), node, limits=limits)


async def test_chat_lane_timeouts() -> None:
    """The chat lane uses chat_inter_token_timeout, unless the node has a timeout of its own."""
    limits = Limits(first_token_timeout=60, inter_token_timeout=60, chat_inter_token_timeout=0.05, max_attempts=1)
    with pytest.raises(InterTokenTimeout):
        await answer(chat_request(), MockChatProtocol(["Once ", Pause(None)]), limits=limits)
    slow = MockChatProtocol(["Once ", Pause(0.2), "upon"])
    slow.timeouts = Timeouts(inter_token=60)
    deltas, _, _ = await answer(chat_request(), slow, limits=limits)
    assert message(deltas)[1] == "Once upon"


async def test_usage_is_estimated_if_no_server_reports_it() -> None:
    """Without a usage report, completion_tokens is the number of deltas and prompt_tokens an estimate."""
    _, usage, _ = await answer(chat_request(), MockChatProtocol(STORY))
    assert usage.completion_tokens == len(STORY)
    assert usage.prompt_tokens > 0


async def test_a_rate_limited_server_gets_no_requests_until_retry_after() -> None:
    """Requests fail at once with RateLimited if the server's Retry-After is longer than queue_timeout."""
    node = MockChatProtocol([RateLimited("slow down", retry_after=30)])
    async with RemoteManager([node]) as remotes:
        await remotes.ready()
        sessions = SessionManager(remotes, limits=LIMITS)
        for _ in range(3):
            with pytest.raises(RateLimited) as caught:
                async with sessions.session("mock") as session:
                    await session.chat(chat_request(), lambda delta: None)
            assert caught.value.retry_after == pytest.approx(30, abs=5)
    assert len(node.requests) == 1


async def test_a_full_server_is_replaced() -> None:
    """A request that one server refuses for lack of capacity is served by another."""
    full, other = MockChatProtocol([NodeBusy("full")], peer="a"), MockChatProtocol(STORY, peer="b")
    deltas, _, _ = await answer(chat_request(), full, other)
    assert message(deltas)[1] == "Once upon a time"


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("parts", "peers"), [([IMAGE], {"b"}), ([], {"a", "b"}), ([IMAGE, {"type": "file"}], {"a", "b"})]
)
async def test_images_go_where_they_are_accepted(parts: list[dict[str, Any]], peers: set[str]) -> None:
    """A server that accepts an input is preferred; if none says that it does, each of them judges the request."""
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]}
    nodes = [MockChatProtocol(STORY, peer="a"), MockChatProtocol(STORY, peer="b", modalities=("image", "audio"))]
    request, used = ChatRequest(model="mock", body=body), set[str]()
    async with RemoteManager(nodes) as remotes:
        while any(remote.unreachable_reason for remote in remotes.remotes):
            await asyncio.sleep(0)
        for _ in range(6):
            async with SessionManager(remotes, limits=LIMITS).session("mock") as session:
                await session.chat(request, lambda delta: None)
                assert session.ledger is not None
                used.update(session.ledger.peers)
    assert used == peers


TOO_LONG = ContextLengthExceeded("This model's maximum context length is exceeded.")


@pytest.mark.parametrize("others", [(4000,), (0,), (200, 100, 4000)])
async def test_a_server_with_a_longer_context_is_asked(others: tuple[int, ...]) -> None:
    """After a server has refused a conversation as too long, those with a longer or an unknown context are asked."""
    small = MockChatProtocol([TOO_LONG], peer="small", context_length=200)
    nodes = [
        MockChatProtocol([TOO_LONG] if 0 < length <= 200 else STORY, peer=str(index), context_length=length)
        for index, length in enumerate(others)
    ]
    deltas, _, _ = await answer(chat_request(), small, *nodes)
    assert message(deltas)[1] == "Once upon a time"
    # One refusal is enough to skip all servers whose context is not longer.
    assert sum(len(node.requests) for node in (small, *nodes)) <= 2 + others.count(100)


@pytest.mark.parametrize("other", [200, 100])
async def test_no_server_with_a_longer_context(other: int) -> None:
    """The refusal is the client's if no other server has a longer context, and does not count as a failure."""
    first = MockChatProtocol([TOO_LONG], peer="first", context_length=200)
    second = MockChatProtocol([TOO_LONG], peer="second", context_length=other)
    with pytest.raises(ContextLengthExceeded):
        await answer(chat_request(), first, second)
    assert (len(first.requests), len(second.requests)) == (1, 0)


def test_invalid_deltas_are_rejected() -> None:
    """Deltas of unknown choices, and arguments of unknown tool calls, raise WireError before they are delivered."""
    ledger = ChatLedger(chat_request())
    for delta in (ChatDelta(1, "x"), ChatDelta(-1, "x"), ChatDelta(0, calls=(CallDelta(0, arguments="{}"),))):
        with pytest.raises(WireError):
            record_delta(ledger.choices, delta)


@pytest.mark.parametrize("more", [ChatDelta(0, "x"), ChatText(0, "x"), ChatDelta(0, finish_reason="stop")])
def test_nothing_follows_the_end(more: ChatDelta) -> None:
    """A delta after the last one of its choice is refused, and the other choices go on."""
    ledger = ChatLedger(chat_request(2))
    record_delta(ledger.choices, ChatDelta(0, "a", finish_reason="stop"))
    with pytest.raises(WireError, match="finished choice"):
        record_delta(ledger.choices, more)
    assert ledger.choices[0].text == ["a"]
    record_delta(ledger.choices, ChatDelta(1, "b"))


PARTS = st.lists(st.text("ab", min_size=1, max_size=3), max_size=5)


@given(reasoning=PARTS, text=PARTS, arguments=PARTS, cut=st.integers(0, 20), sizes=st.lists(st.integers(1, 4)))
def test_any_split_of_a_replay(
    reasoning: list[str], text: list[str], arguments: list[str], cut: int, sizes: list[int]
) -> None:
    """Wherever an answer is cut, and however its replay is split, the client sees one answer."""
    whole = [
        *(ChatDelta(0, reasoning=part) for part in reasoning),
        *(ChatDelta(0, part) for part in text),
        ChatDelta(0, calls=(CallDelta(0, "call_1", "look"),)),
        *(ChatDelta(0, calls=(CallDelta(0, arguments=part),)) for part in arguments),
    ]
    ledger = ChatLedger(chat_request())
    delivered = whole[: min(cut, len(whole))]
    for delta in delivered:
        record_delta(ledger.choices, delta)
    replay = Replay(ledger.choices[0])
    replayed = [
        *(ChatDelta(0, reasoning=part) for part in split("".join(reasoning), sizes)),
        *(ChatDelta(0, part) for part in split("".join(text), sizes)),
        ChatDelta(0, calls=(CallDelta(0, "call_9", "look"),)),
        *(ChatDelta(0, calls=(CallDelta(0, arguments=part),)) for part in split("".join(arguments), sizes)),
        ChatDelta(0, finish_reason="tool_calls"),
    ]
    rest = [delta for delta in map(replay.skip_delivered, replayed) if delta is not None]
    assert message([*delivered, *rest])[:4] == message(whole)[:4]


LOOK = CallDelta(0, "call_1", "look")


@pytest.mark.parametrize(
    ("delivered", "replayed"),
    [
        (ChatDelta(0, "ab"), ChatDelta(0, "a")),
        (ChatDelta(0, reasoning="ab"), ChatDelta(0, reasoning="a")),
        (ChatDelta(0, refusal="ab"), ChatDelta(0, refusal="a")),
        (ChatDelta(0, calls=(LOOK,)), ChatDelta(0)),
        (ChatDelta(0, calls=(msgspec.structs.replace(LOOK, arguments="{}"),)), ChatDelta(0, calls=(LOOK,))),
        (ChatDelta(0, calls=(msgspec.structs.replace(LOOK, extra={"index": 7}),)), ChatDelta(0, calls=(LOOK,))),
    ],
    ids=["text", "reasoning", "refusal", "call", "arguments", "extra"],
)
def test_a_replay_that_leaves_something_out(delivered: ChatDelta, replayed: ChatDelta) -> None:
    """A replay that ends without all that was delivered is another answer, whatever it is that is missing."""
    ledger = ChatLedger(chat_request())
    record_delta(ledger.choices, delivered)
    replay = Replay(ledger.choices[0])
    assert replay.skip_delivered(replayed) is None
    with pytest.raises(Diverged):
        replay.skip_delivered(ChatDelta(0, finish_reason="stop"))


def test_a_replay_that_calls_another_function() -> None:
    """Equal arguments of another function are another call, which must not continue the delivered one."""
    ledger = ChatLedger(chat_request())
    record_delta(ledger.choices, ChatDelta(0, calls=(LOOK,)))
    with pytest.raises(Diverged):
        Replay(ledger.choices[0]).skip_delivered(ChatDelta(0, calls=(CallDelta(0, "call_2", "read"),)))


def test_a_replay_in_another_order() -> None:
    """A text that was delivered, but elsewhere, is not the beginning of the same answer."""
    ledger = ChatLedger(chat_request())
    record_delta(ledger.choices, ChatDelta(0, "upon a time"))
    replay = Replay(ledger.choices[0])
    assert replay.skip_delivered(ChatDelta(0, "upon ")) is None
    with pytest.raises(Diverged):
        replay.skip_delivered(ChatDelta(0, "time"))


def test_logprobs_of_a_replay() -> None:
    """The logprobs of delivered tokens are skipped, however they are split, and those after them are passed on."""
    ledger = ChatLedger(chat_request())
    entries: list[dict[str, object]] = [{"token": token} for token in "abcd"]
    record_delta(ledger.choices, ChatDelta(0, "abc", logprobs=entries[:3]))
    replay = Replay(ledger.choices[0])
    assert replay.skip_delivered(ChatDelta(0, "ab", logprobs=entries[:2])) is None
    assert replay.skip_delivered(ChatDelta(0, "c", logprobs=entries[2:3])) is None
    rest = replay.skip_delivered(ChatDelta(0, "d", logprobs=entries[3:]))
    assert rest is not None
    assert (rest.text, rest.logprobs) == ("d", entries[3:])


def test_an_answer_with_other_members_is_not_continued() -> None:
    """An answer with members that cannot be compared is given up, though its text could be repeated or continued."""
    ledger = ChatLedger(chat_request(seed=1))
    record_delta(ledger.choices, ChatDelta(0, "Once "))
    assert choose_strategy(ledger, Capabilities(prefill=True)) == "replay"
    record_delta(ledger.choices, ChatDelta(0, "upon ", extra={"audio": {"data": "x"}}))
    with pytest.raises(Diverged):
        choose_strategy(ledger, Capabilities(prefill=True))


def split(text: str, sizes: Sequence[int]) -> list[str]:
    parts = []
    for size in sizes:
        parts.append(text[:size])
        text = text[size:]
    return [part for part in (*parts, text) if part]
