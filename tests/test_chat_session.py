"""An answer of the chat lane survives its server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet import Limits, RemoteManager, SessionManager
from subnet.chat import CallDelta, ChatDelta, ChatRequest, ChatUsage
from subnet.client.ledger.base import Ledger, record_delta
from subnet.client.ledger.chat import ChatLedger
from subnet.client.resume.chat import Replay
from subnet.client.resume.token import Diverged
from subnet.errors import InterTokenTimeout, NodeBusy, NodeError, NodeLost, RateLimited, WireError
from subnet.protocols.base import Protocol, Timeouts
from subnet.protocols.mock import Pause
from subnet.protocols.mock_chat import ChatStep, MockChatProtocol

QUICK = Limits(
    first_token_timeout=0.2,
    prefill_rate=1e6,
    inter_token_timeout=0.2,
    retry_timeout=1.0,
    max_attempts=3,
    backoff=0.001,
    queue_timeout=0.2,
)
LOST = NodeLost("the connection broke")
SAID: list[ChatStep] = ["Once ", "upon ", "a ", "time"]
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


def asking(choices: int = 1, **body: Any) -> ChatRequest:
    messages = [{"role": "user", "content": "Tell me a story"}]
    return ChatRequest(model="mock", body={"messages": messages, **body}, choices=tuple(range(choices)))


async def answer(
    request: ChatRequest, *nodes: Protocol, limits: Limits = QUICK
) -> tuple[list[ChatDelta], ChatUsage, Ledger[Any]]:
    deltas: list[ChatDelta] = []
    async with RemoteManager(nodes) as remotes:
        for _ in nodes:
            await remotes.ready()
        async with SessionManager(remotes, limits=limits).session("mock") as session:
            usage = await session.chat(request, deltas.append)
            assert session.ledger is not None
            return deltas, usage, session.ledger


def message(deltas: Sequence[ChatDelta], choice: int = 0) -> tuple[object, ...]:
    """What a client puts together."""
    own = [delta for delta in deltas if delta.choice == choice]
    calls: dict[int, list[str]] = {}
    for delta in own:
        for call in delta.calls:
            calls.setdefault(call.index, []).append(call.name + call.arguments)
    said = ("".join(getattr(delta, name) for delta in own) for name in ("reasoning", "text", "refusal"))
    ends = [delta.finish_reason for delta in own if delta.finish_reason]
    return (*said, {index: "".join(parts) for index, parts in calls.items()}, ends)


@pytest.mark.parametrize("script", [SAID, CALLING], ids=["text", "calls"])
async def test_a_lost_answer_is_asked_for_again(script: list[ChatStep]) -> None:
    """Wherever a server is lost, what another one repeats is skipped, and the client sees one answer."""
    whole, _, _ = await answer(asking(seed=1), MockChatProtocol(script))
    for cut in range(len(script)):
        broken, other = MockChatProtocol([*script[:cut], LOST], peer="a"), MockChatProtocol(script, peer="b")
        deltas, _, ledger = await answer(asking(seed=1), broken, other)
        assert message(deltas) == message(whole)
        assert ledger.peers == ["a", "b"]


async def test_what_another_server_says_otherwise() -> None:
    """A server that says something else than was delivered is not believed: the answer ends with an error, and no word
    of the other one."""
    deltas: list[ChatDelta] = []
    nodes = [MockChatProtocol(["Once ", "upon ", LOST], peer="a"), MockChatProtocol(["Once ", "again"], peer="b")]
    async with RemoteManager(nodes) as remotes:
        await remotes.ready()
        async with SessionManager(remotes, limits=QUICK).session("mock") as session:
            with pytest.raises(Diverged):
                await session.chat(asking(seed=1), deltas.append)
    assert "".join(delta.text for delta in deltas) == "Once upon "


async def test_an_answer_is_gone_on_with() -> None:
    """A server that can go on with a beginning is given it, when nothing says that the same would come again."""
    broken = MockChatProtocol(["Once ", "upon ", LOST], peer="a")
    other = MockChatProtocol(
        ["a ", "time"], peer="b", prefill=True, usage=ChatUsage(prompt_tokens=9, completion_tokens=2)
    )
    deltas, usage, _ = await answer(asking(max_tokens=10), broken, other)
    assert message(deltas)[1] == "Once upon a time"
    assert other.requests[0].prefix == "Once upon "
    assert other.requests[0].body["max_tokens"] == 8
    assert usage == ChatUsage(prompt_tokens=7, completion_tokens=4)


@pytest.mark.parametrize(
    "body", [{"response_format": {"type": "json_object"}}, {"tool_choice": "required"}, {"guided_regex": "a+"}]
)
async def test_a_form_is_not_begun_in_its_middle(body: dict[str, Any]) -> None:
    """A server would begin the form anew: such an answer is repeated, or fails."""
    broken = MockChatProtocol(["{", LOST], peer="a")
    other = MockChatProtocol(["{", "}"], peer="b", prefill=True)
    deltas, _, _ = await answer(asking(**body), broken, other)
    assert message(deltas)[1] == "{}"
    assert other.requests[0].prefix == ""


async def test_only_what_lacks_is_gone_on_with() -> None:
    """Of several choices those that are complete stay as they are."""
    broken = MockChatProtocol(
        [ChatDelta(0, "one"), ChatDelta(1, "two"), ChatDelta(0, finish_reason="stop"), LOST], peer="a"
    )
    other = MockChatProtocol([" more"], peer="b", prefill=True)
    deltas, _, _ = await answer(asking(2), broken, other)
    assert (message(deltas)[1], message(deltas, 1)[1]) == ("one", "two more")
    assert [request.choices for request in other.requests] == [(1,)]


async def test_silence_is_noticed() -> None:
    """A server that stalls is left, and signs of life keep it."""
    stalled = MockChatProtocol(["Once ", Pause(None)], peer="a")
    deltas, _, ledger = await answer(asking(seed=1), stalled, MockChatProtocol(SAID, peer="b"))
    assert message(deltas)[1] == "Once upon a time"
    assert (ledger.peers, stalled.cancelled) == (["a", "b"], 1)


async def test_a_node_may_have_limits_of_its_own() -> None:
    """What is set for one node holds there alone."""
    node = MockChatProtocol(["Once ", Pause(None)])
    node.timeouts = Timeouts(inter_token=0.05)
    patient = Limits(inter_token_timeout=60, max_attempts=1)
    with pytest.raises(InterTokenTimeout, match=r"sent no token for (0\.1|0\.0) s \(inter_token_timeout\)"):
        await answer(asking(), node, limits=patient)
    node = MockChatProtocol([*SAID, Pause(None)])
    node.timeouts = Timeouts(attempt=0.05)
    with pytest.raises(NodeError, match=r"did not finish within 0\.[01] s \(attempt_timeout\)"):
        await answer(asking(), node, limits=patient)


async def test_servers_that_think_unseen() -> None:
    """On the chat lane there are limits of its own; what is set for a node is more."""
    impatient = Limits(first_token_timeout=60, inter_token_timeout=60, chat_inter_token_timeout=0.05, max_attempts=1)
    with pytest.raises(InterTokenTimeout):
        await answer(asking(), MockChatProtocol(["Once ", Pause(None)]), limits=impatient)
    patient = MockChatProtocol(["Once ", Pause(0.2), "upon"])
    patient.timeouts = Timeouts(inter_token=60)
    deltas, _, _ = await answer(asking(), patient, limits=impatient)
    assert message(deltas)[1] == "Once upon"


async def test_usage_is_estimated_where_nobody_tells() -> None:
    """As many tokens as pieces came, at least."""
    _, usage, _ = await answer(asking(), MockChatProtocol(SAID))
    assert usage.completion_tokens == len(SAID)
    assert usage.prompt_tokens > 0


async def test_a_server_that_is_asked_too_often_is_left_alone() -> None:
    """For as long as it says; who cannot wait so long hears that at once."""
    node = MockChatProtocol([RateLimited("slow down", retry_after=30)])
    async with RemoteManager([node]) as remotes:
        await remotes.ready()
        sessions = SessionManager(remotes, limits=QUICK)
        for _ in range(3):
            with pytest.raises(RateLimited) as caught:
                async with sessions.session("mock") as session:
                    await session.chat(asking(), lambda delta: None)
            assert caught.value.retry_after == pytest.approx(30, abs=5)
    assert len(node.requests) == 1


async def test_another_server_takes_over_from_a_full_one() -> None:
    """Being full is no failure."""
    full, other = MockChatProtocol([NodeBusy("full")], peer="a"), MockChatProtocol(SAID, peer="b")
    deltas, _, _ = await answer(asking(), full, other)
    assert message(deltas)[1] == "Once upon a time"


def test_what_no_honest_server_sends() -> None:
    """Is refused before it is handed on."""
    ledger = ChatLedger(asking())
    for delta in (ChatDelta(1, "x"), ChatDelta(-1, "x"), ChatDelta(0, calls=(CallDelta(0, arguments="{}"),))):
        with pytest.raises(WireError):
            record_delta(ledger.choices, delta)


PIECES = st.lists(st.text("ab", min_size=1, max_size=3), max_size=5)


@given(reasoning=PIECES, text=PIECES, arguments=PIECES, cut=st.integers(0, 20), sizes=st.lists(st.integers(1, 4)))
def test_any_split_of_a_replay(
    reasoning: list[str], text: list[str], arguments: list[str], cut: int, sizes: list[int]
) -> None:
    """However an answer is cut, and however its repetition is split, the two make one answer."""
    whole = [
        *(ChatDelta(0, reasoning=piece) for piece in reasoning),
        *(ChatDelta(0, piece) for piece in text),
        ChatDelta(0, calls=(CallDelta(0, "call_1", "look"),)),
        *(ChatDelta(0, calls=(CallDelta(0, arguments=piece),)) for piece in arguments),
    ]
    ledger = ChatLedger(asking())
    delivered = whole[: min(cut, len(whole))]
    for delta in delivered:
        record_delta(ledger.choices, delta)
    replay = Replay(ledger.choices[0])
    again = [
        *(ChatDelta(0, reasoning=piece) for piece in split("".join(reasoning), sizes)),
        *(ChatDelta(0, piece) for piece in split("".join(text), sizes)),
        ChatDelta(0, calls=(CallDelta(0, "call_9", "look"),)),
        *(ChatDelta(0, calls=(CallDelta(0, arguments=piece),)) for piece in split("".join(arguments), sizes)),
        ChatDelta(0, finish_reason="tool_calls"),
    ]
    rest = [delta for delta in map(replay.skip_delivered, again) if delta is not None]
    assert message([*delivered, *rest])[:4] == message(whole)[:4]


def split(text: str, sizes: Sequence[int]) -> list[str]:
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [piece for piece in (*pieces, text) if piece]
