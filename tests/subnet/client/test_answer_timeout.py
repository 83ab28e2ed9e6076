"""An answer ends within `answer_timeout`, whatever the nodes send, and keep-alives end at `keep_alive_timeout`."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from subnet import Limits, RemoteManager, RequestState, Sampling, SessionManager
from subnet.chat import ChatRequest
from subnet.client.session import Session
from subnet.errors import AnswerTimeout, NodeTimeout
from subnet.http.node_spec import NodeSpec
from subnet.protocols.mock import MockProtocol, Step
from subnet.protocols.mock import Pause as NodePause
from subnet.protocols.openai import OpenAIProtocol
from subnet.wire.messages import Generate
from tests.chat_node import HELLO
from tests.provider import Pause, Provider, Script, chunk, event, text_chunk

QUICK = Limits(
    first_token_timeout=0.05,
    prefill_rate=1e9,
    inter_token_timeout=0.05,
    keep_alive_timeout=0.15,
    max_attempts=1,
    answer_timeout=5.0,
)
WORD = event(chunk({"content": " word"}))


def endless(step: bytes, seconds: float = 0.01) -> Script:
    """Return a response that repeats `step` for longer than any test waits for it."""
    steps: list[bytes | Pause] = [step, Pause(seconds)]
    return Script([event(chunk({"role": "assistant", "content": ""})), *steps * 2000])


async def ask(script: Script, limits: Limits, state: RequestState | None = None) -> int:
    """Send a chat request to a server that plays `script`; return how many pieces of text arrived until the error."""
    pieces = 0

    def emit(delta: object) -> None:
        nonlocal pieces
        pieces += bool(getattr(delta, "text", ""))

    async with Provider(script) as provider:
        async with RemoteManager([OpenAIProtocol(NodeSpec(url=provider.url))]) as manager:
            await manager.ready()
            async with Session(manager, model="model", limits=limits, state=state) as session:
                with pytest.raises((AnswerTimeout, NodeTimeout)) as caught:
                    await session.chat(ChatRequest(model="model", body={"messages": HELLO}), emit)
    if isinstance(caught.value, NodeTimeout):
        raise caught.value
    return pieces


IDLE: dict[str, bytes] = {
    "comments": b": OPENROUTER PROCESSING\n\n",
    "empty-data": b"data:\n\n",
    "empty-object": b"data: {}\n\n",
    "no-choices": event({"choices": []}),
    "empty-delta": event(chunk({})),
    "role": event(chunk({"role": "assistant"})),
    "empty-content": event(chunk({"content": ""})),
    "nulls": event(chunk({"content": None, "reasoning_content": None, "tool_calls": None})),
    "no-delta": event({"choices": [{"index": 0}]}),
    "null-chunk": b"data: null\n\n",
    "ping": event({"type": "ping"}, name="ping"),
    "usage": event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}),
    "other-fields": b"id: 7\nretry: 10\n\n",
    "empty-lines": b"\n",
    "byte-by-byte": b"x",
    "text-without-text": event(text_chunk()),
}


@pytest.mark.parametrize("kind", IDLE)
async def test_a_stream_without_content_ends(kind: str) -> None:
    """A server that only sends keep-alives, in any form, or bytes that are not even that, is given up."""
    with pytest.raises(NodeTimeout, match="no first token within"):
        await ask(endless(IDLE[kind]), QUICK)


@pytest.mark.parametrize("kind", ["comments", "empty-delta"])
async def test_a_stream_that_loses_its_content_ends(kind: str) -> None:
    """The same holds in the middle of an answer."""
    script = endless(IDLE[kind])
    with pytest.raises(NodeTimeout, match="no token for"):
        await ask(Script([WORD, *script.steps]), QUICK)


@pytest.mark.parametrize("step", [WORD, event(chunk({"content": "\n"})), event(chunk({"reasoning": " "}))])
async def test_endless_content_ends(step: bytes) -> None:
    """An answer that always goes on ends after answer_timeout, also one of white space."""
    pieces = await ask(endless(step), Limits(answer_timeout=0.3))
    assert bool(pieces) == (b"reasoning" not in step)


async def test_the_time_of_an_answer_counts_over_all_sessions_of_a_request() -> None:
    """With the state of a request that started long ago, an answer ends at its first check."""
    before = monotonic()
    await ask(endless(WORD), Limits(answer_timeout=1000.0), RequestState(started=before - 999.9))
    assert monotonic() - before < 500


@pytest.mark.parametrize("nodes", [1, 3])
async def test_tokens_without_end(nodes: int) -> None:
    """On the token lane it is the same, and the error is not one of the node."""

    def script(request: Generate) -> list[Step]:
        steps: list[Step] = [1, NodePause(0.01)]
        return steps * 1000 if request.sampling.max_tokens is None else [1]

    protocols = [MockProtocol(script, peer=f"node-{number}") for number in range(nodes)]
    async with RemoteManager(protocols) as manager:
        await manager.ready()
        sessions = SessionManager(manager, limits=Limits(answer_timeout=0.3))
        async with sessions.session() as session:
            with pytest.raises(AnswerTimeout, match=r"within 0\.3 s \(answer_timeout\)"):
                async with asyncio.timeout(20):
                    await session.run([1], Sampling(), lambda delta: None)
            assert session.ledger is not None
            assert session.ledger.delivered_tokens
            # The next generation of the session has its own time, and the nodes are not blamed.
            await session.run([1], Sampling(max_tokens=1), lambda delta: None)
        assert {remote.status(monotonic()).state for remote in manager.remotes} == {"healthy"}
