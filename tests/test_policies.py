"""Routing policies: what holds for all of them, and what each is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet import MockProtocol
from subnet.node_info import Capabilities, ModelCard, NodeInfo
from subnet.pool.node import Remote
from subnet.pool.policies import PolicyName
from subnet.pool.policies.base import Policy, Want
from subnet.pool.policies.least_loaded import LeastLoaded
from subnet.pool.policies.power_of_two import PowerOfTwo
from subnet.pool.policies.prefix_affinity import PrefixAffinity
from subnet.pool.policies.registry import POLICIES
from subnet.pool.policies.round_robin import RoundRobin
from subnet.pool.policies.sticky import Sticky
from subnet.wire.tensors import token_ids

CAPACITY = 8
PEERS = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)
LOADS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2 * CAPACITY), min_size=1)
PROMPTS = st.lists(st.integers(0, 2**31 - 1), max_size=80)
WANTS = st.builds(lambda prompt, key: Want(token_ids(prompt), key), PROMPTS, st.none() | st.text())
MAKERS: dict[PolicyName, Callable[[], Policy]] = {**POLICIES, "power-of-two": lambda: PowerOfTwo(Random(0))}
CARD = ModelCard(id="m", context_length=4096, tokenizer="")


def node(peer: str, running: int = 0) -> Remote:
    """A healthy node that said it runs so many requests of other gateways."""
    remote = Remote(MockProtocol(peer=peer))
    remote.came(said(peer, running), 0.0)
    return remote


def said(peer: str, running: int, capacity: int = CAPACITY) -> NodeInfo:
    return NodeInfo(
        node_id=peer,
        version="0",
        engine="mock",
        cards=(CARD,),
        capabilities=Capabilities(),
        capacity=capacity,
        running=running,
    )


def nodes(loads: dict[str, int]) -> list[Remote]:
    return [node(peer, running) for peer, running in loads.items()]


def test_every_policy_has_a_name() -> None:
    """What can be set is what there is."""
    assert set(get_args(PolicyName)) == set(POLICIES)


@pytest.mark.parametrize("name", MAKERS)
@given(rounds=st.lists(st.tuples(LOADS, WANTS), max_size=5))
def test_one_of_the_candidates(name: PolicyName, rounds: list[tuple[dict[str, int], Want]]) -> None:
    """Whoever there is and whatever is wanted, one of the candidates is chosen, and the same every time it is asked."""
    one, other = MAKERS[name](), MAKERS[name]()
    for loads, want in rounds:
        candidates = nodes(loads)
        chosen = one.choose(candidates, want)
        assert chosen in candidates
        assert other.choose(candidates, want) is chosen


@given(st.lists(PEERS, min_size=1))
def test_round_robin_is_fair(memberships: list[list[str]]) -> None:
    """However nodes come and go: while they stay, everyone is chosen once before anyone is chosen twice."""
    policy, known = RoundRobin(), {peer: node(peer) for peer in "abcdefgh"}
    for peers in memberships:
        present = [known[peer] for peer in peers]
        for _ in range(3):
            chosen = [policy.choose(present, Want()).peer for _ in present]
            assert sorted(chosen) == sorted(peers)


@given(LOADS)
def test_least_loaded(loads: dict[str, int]) -> None:
    """Nobody has less to do than who is chosen."""
    assert loads[LeastLoaded().choose(nodes(loads), Want()).peer] == min(loads.values())


def test_least_loaded_takes_turns() -> None:
    """Idle nodes share the work even if no two requests meet."""
    policy, candidates = LeastLoaded(), nodes(dict.fromkeys("abc", 0))
    assert [policy.choose(candidates, Want()).peer for _ in range(6)] == [*"abcabc"]


def test_load_is_a_share() -> None:
    """A large node with more requests may have more room than a small one."""
    small, large = node("small"), node("large")
    small.came(said("small", 1, capacity=2), 0.0)
    large.came(said("large", 5, capacity=20), 0.0)
    assert LeastLoaded().choose([small, large], Want()) is large


@given(LOADS, st.integers())
def test_power_of_two_spares_the_fullest(loads: dict[str, int], seed: int) -> None:
    """The single fullest node of several is never the better of two."""
    policy, most = PowerOfTwo(Random(seed)), max(loads.values())
    chosen = loads[policy.choose(nodes(loads), Want()).peer]
    assert chosen < most or [*loads.values()].count(most) > 1 or len(loads) == 1


def test_power_of_two_uses_everyone() -> None:
    """With nothing to choose between them, all nodes get about as much."""
    policy, candidates = PowerOfTwo(Random(1)), nodes(dict.fromkeys("abcd", 0))
    counts = Counter(policy.choose(candidates, Want()).peer for _ in range(4000))
    assert all(900 < count < 1100 for count in counts.values())


def peer_of(policy: Policy, candidates: Sequence[Remote], prompt: list[int]) -> str:
    return policy.choose(candidates, Want(token_ids(prompt))).peer


@given(st.lists(st.integers(0, 99), min_size=256, max_size=300), PROMPTS, PROMPTS, PEERS)
def test_equal_prefixes_meet(prefix: list[int], one: list[int], other: list[int], peers: list[str]) -> None:
    """Prompts with a common beginning go to the same node, for any instance of the policy."""
    candidates = nodes(dict.fromkeys(peers, 0))
    assert peer_of(PrefixAffinity(), candidates, prefix + one) == peer_of(PrefixAffinity(), candidates, prefix + other)


@given(st.lists(st.integers(0, 99), min_size=16), PEERS)
def test_a_prefix_keeps_its_node(prompt: list[int], peers: list[str]) -> None:
    """That another node leaves or joins changes nothing; when its own leaves, it is as if that had never been."""
    policy, everyone = PrefixAffinity(), nodes(dict.fromkeys(peers, 0))
    chosen = peer_of(policy, everyone, prompt)
    for gone in peers:
        rest = [remote for remote in everyone if remote.peer != gone]
        if gone != chosen:
            assert peer_of(policy, rest, prompt) == chosen


@given(st.lists(st.integers(0, 99), min_size=16), LOADS)
def test_overload_spills(prompt: list[int], loads: dict[str, int]) -> None:
    """Who is chosen has room and is not far above the mean, if there is anyone like that; a node that is less than
    half full keeps its own.
    """
    policy, candidates = PrefixAffinity(bound=1.25), nodes(loads)
    mean = sum(loads.values()) / len(loads)
    chosen, favourite = peer_of(policy, candidates, prompt), peer_of(policy, nodes(dict.fromkeys(loads, 0)), prompt)
    if loads[favourite] <= CAPACITY / 2:
        assert chosen == favourite
    elif min(loads.values()) < CAPACITY:
        assert loads[chosen] < CAPACITY
        assert loads[chosen] <= max(CAPACITY / 2, 1.25 * mean)
    else:
        assert loads[chosen] == min(loads.values())


def test_prefixes_spread() -> None:
    """Different beginnings go to different nodes, about evenly; short prompts go where there is room."""
    policy, candidates = PrefixAffinity(), nodes(dict.fromkeys("abcd", 0))
    counts = Counter(peer_of(policy, candidates, [number] * 16) for number in range(4000))
    assert all(850 < count < 1150 for count in counts.values())
    assert peer_of(policy, nodes({"a": 3, "b": 0, "c": 2}), [1] * 15) == "b"


@given(st.text(min_size=1), PROMPTS, LOADS, LOADS)
def test_sticky(key: str, prompt: list[int], loads: dict[str, int], later: dict[str, int]) -> None:
    """A key keeps its node whatever is asked and however full it is, while that node is among the candidates."""
    first = Sticky().choose(nodes(loads), Want(key=key)).peer
    second = Sticky().choose(nodes({**dict.fromkeys(loads, 0), **later}), Want(token_ids(prompt), key)).peer
    assert second == first or second in later.keys() - loads.keys()


def test_sticky_without_a_key() -> None:
    """There the other policy decides."""
    policy, candidates = Sticky(RoundRobin()), nodes(dict.fromkeys("abc", 0))
    assert [policy.choose(candidates, Want(key=key)).peer for key in (None, "", None)] == [*"abc"]


def test_a_key_that_is_no_text() -> None:
    """JSON can carry half a surrogate pair; it is a key like any other."""
    assert Sticky().choose([node("a")], Want(key="\ud800")).peer == "a"
