"""Requests that bring down one node after the other are not sent to a third."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from subnet import MockProtocol, RemoteManager, Sampling, SessionManager
from subnet.client.suspects import SuspectRequests
from subnet.errors import EngineFailed, InterTokenTimeout, NodeDied, NodeLost, RepeatedFailure, SubnetError
from subnet.generation import Delta
from subnet.protocols.mock import Step
from tests.subnet.client.test_session import QUICK, subnet

PROMPT = [1, 2, 3]


def nodes(*scripts: list[Step]) -> list[MockProtocol]:
    return [MockProtocol(script, peer=peer) for peer, script in zip("abcdefgh", scripts, strict=False)]


async def ask(sessions: SessionManager, prompt: list[int] = PROMPT, **sampling: Any) -> list[int]:
    async with sessions.session("mock") as session:
        deltas: list[Delta] = [delta async for delta in session.generate(prompt, Sampling(**sampling))]
    return [token for delta in deltas for token in delta.tokens]


def sessions_of(manager: RemoteManager) -> SessionManager:
    return SessionManager(manager, limits=QUICK)


def requests(*protocols: MockProtocol) -> list[int]:
    return [len(protocol.requests) for protocol in protocols]


@pytest.mark.parametrize("error", [EngineFailed("broke"), NodeDied("gone")], ids=["engine", "process"])
async def test_the_third_node_is_spared(error: SubnetError) -> None:
    """After two nodes have failed without a token, the third is not asked, and neither is any for the next request."""
    protocols = nodes([error], [error], [10], [10])
    async with subnet(*protocols) as manager:
        sessions = sessions_of(manager)
        for seed in (1, 2):
            with pytest.raises(RepeatedFailure):
                await ask(sessions, seed=seed)
        assert requests(*protocols) == [1, 1, 0, 0]
        # Other parameters make another request, and another gateway knows nothing of the first one.
        assert await ask(sessions, max_tokens=7) == [10]
        assert await ask(sessions_of(manager)) == [10]


async def test_other_requests_are_served() -> None:
    """Only the request that failed is refused: others still reach all nodes."""

    def script(request: object) -> list[Step]:
        return [EngineFailed("broke")] if b"\x07" in request.prompt.data else [10]  # type: ignore[attr-defined]

    protocols = [MockProtocol(script, peer=peer) for peer in "abc"]
    async with subnet(*protocols) as manager:
        sessions = sessions_of(manager)
        with pytest.raises(RepeatedFailure):
            await ask(sessions, [7])
        assert [await ask(sessions, [number]) for number in range(6)] == [[10]] * 6
        with pytest.raises(RepeatedFailure):
            await ask(sessions, [7])
    assert sum(requests(*protocols)) == 8


async def test_progress_clears_the_suspicion() -> None:
    """An answer that gets a new token from each node survives any number of them: none was brought down by it."""
    died = NodeDied("gone")
    protocols = nodes(*[[*range(10, 11 + number), died] for number in range(7)], list(range(10, 20)))
    async with subnet(*protocols) as manager:
        assert await ask(sessions_of(manager)) == list(range(10, 20))
    assert requests(*protocols) == [1] * 8


@pytest.mark.parametrize("other", [NodeLost("unreachable"), InterTokenTimeout("stalled")], ids=["lost", "timeout"])
async def test_only_failures_in_a_row_count(other: SubnetError) -> None:
    """A failure that the request cannot have caused is no evidence, and neither is the one before it."""
    protocols = nodes([EngineFailed("broke")], [other], [EngineFailed("broke")], [10])
    async with subnet(*protocols) as manager:
        assert await ask(sessions_of(manager)) == [10]


async def test_an_answer_clears_the_suspicion() -> None:
    """An answer from another node clears the suspicion: nodes may die under the request again and again."""
    asked = count()

    def script(request: object) -> list[Step]:
        return [10] if next(asked) % 2 else [NodeDied("gone")]

    async with subnet(*(MockProtocol(script, peer=peer) for peer in "abcdefgh")) as manager:
        sessions = sessions_of(manager)
        assert [await ask(sessions) for _ in range(3)] == [[10]] * 3
    assert next(asked) == 6


async def test_one_node_is_not_enough() -> None:
    """The failures of a single node say nothing about the request: it is tried as often as ever."""
    protocols = nodes([EngineFailed("broke")])
    async with subnet(*protocols) as manager:
        with pytest.raises(EngineFailed):
            await ask(sessions_of(manager))
    assert requests(*protocols) == [QUICK.max_attempts]


def test_failures_are_forgotten() -> None:
    """A failure is remembered for 60 s, and at most 1,024 requests are."""
    now = 0.0
    suspects = SuspectRequests(lambda: now)
    for peer in "ab":
        suspects.record(b"first", peer)
    with pytest.raises(RepeatedFailure):
        suspects.check(b"first")
    now = 59.9
    with pytest.raises(RepeatedFailure):
        suspects.check(b"first")
    now = 60.0
    suspects.check(b"first")
    assert not suspects
    for number in range(1025):
        for peer in "ab":
            suspects.record(str(number).encode(), peer)
    suspects.check(b"0")
    for number in (1, 1024):
        with pytest.raises(RepeatedFailure):
            suspects.check(str(number).encode())


def test_a_later_failure_does_not_keep_others() -> None:
    """A request that fails again is remembered for longer, and those that failed before it are not."""
    now = 0.0
    suspects = SuspectRequests(lambda: now)
    suspects.record(b"again", "a")
    suspects.record(b"once", "a")
    now = 30.0
    suspects.record(b"again", "b")
    now = 60.0
    suspects.record(b"once", "b")
    suspects.check(b"once")
    with pytest.raises(RepeatedFailure):
        suspects.check(b"again")
