"""Routing policies: common properties of all, and the specific properties of each."""

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
from subnet.pool.deployment import Deployment
from subnet.pool.node import RemoteNode
from subnet.pool.policies import PolicyName
from subnet.pool.policies.base import Policy, RoutingHint
from subnet.pool.policies.least_loaded import LeastLoaded
from subnet.pool.policies.policy_registry import POLICIES
from subnet.pool.policies.power_of_two import PowerOfTwo
from subnet.pool.policies.prefix_affinity import PrefixAffinity
from subnet.pool.policies.round_robin import RoundRobin
from subnet.pool.policies.sticky import Sticky
from subnet.tensors import token_ids

CAPACITY = 8
PEERS = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)
LOADS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 2 * CAPACITY), min_size=1)
PROMPTS = st.lists(st.integers(0, 2**31 - 1), max_size=80)
HINTS = st.builds(lambda prompt, key: RoutingHint(token_ids(prompt), key), PROMPTS, st.none() | st.text())
MAKERS: dict[PolicyName, Callable[[], Policy]] = {**POLICIES, "power-of-two": lambda: PowerOfTwo(Random(0))}
CARD = ModelCard(id="m", context_length=4096, tokenizer="")


def node(peer: str, running: int = 0, weight: float = 1.0) -> Deployment:
    """Create a model on a healthy node whose health check reported `running` requests of other gateways."""
    remote = RemoteNode(MockProtocol(peer=peer))
    remote.mark_healthy(info(peer, running), 0.0)
    deployment = remote.deployment("m")
    deployment.weight = weight
    return deployment


def info(peer: str, running: int, capacity: int = CAPACITY) -> NodeInfo:
    return NodeInfo(
        node_id=peer,
        version="0",
        engine="mock",
        cards=(CARD,),
        capabilities=Capabilities(),
        capacity=capacity,
        running=running,
    )


def nodes(loads: dict[str, int]) -> list[Deployment]:
    return [node(peer, running) for peer, running in loads.items()]


def test_every_policy_has_a_name() -> None:
    """The values of the setting `policy` are the names of the policies in the registry."""
    assert set(get_args(PolicyName)) == set(POLICIES)


@pytest.mark.parametrize("name", MAKERS)
@given(requests=st.lists(st.tuples(LOADS, HINTS), max_size=5))
def test_every_policy_chooses_a_candidate(name: PolicyName, requests: list[tuple[dict[str, int], RoutingHint]]) -> None:
    """For any candidates and hint, each policy chooses a candidate, and equal instances choose the same one."""
    one, other = MAKERS[name](), MAKERS[name]()
    for loads, hint in requests:
        candidates = nodes(loads)
        chosen = one.choose(candidates, hint)
        assert chosen in candidates
        assert other.choose(candidates, hint) is chosen


@given(st.lists(PEERS, min_size=1))
def test_round_robin_is_fair(memberships: list[list[str]]) -> None:
    """Each candidate is chosen once before any is chosen twice, even after nodes joined or left."""
    policy, known = RoundRobin(), {peer: node(peer) for peer in "abcdefgh"}
    for peers in memberships:
        present = [known[peer] for peer in peers]
        for _ in range(3):
            chosen = [policy.choose(present, RoutingHint()).peer for _ in present]
            assert sorted(chosen) == sorted(peers)


@given(LOADS)
def test_least_loaded(loads: dict[str, int]) -> None:
    """No candidate has a lower load than the chosen one."""
    assert loads[LeastLoaded().choose(nodes(loads), RoutingHint()).peer] == min(loads.values())


def test_least_loaded_takes_turns() -> None:
    """Idle nodes are chosen in turn, even if requests never run at the same time."""
    policy, candidates = LeastLoaded(), nodes(dict.fromkeys("abc", 0))
    assert [policy.choose(candidates, RoutingHint()).peer for _ in range(6)] == [*"abcabc"]


def test_load_is_relative_to_capacity() -> None:
    """A large node with more requests may have a lower load than a small one."""
    small, large = node("small"), node("large")
    small.remote.mark_healthy(info("small", 1, capacity=2), 0.0)
    large.remote.mark_healthy(info("large", 5, capacity=20), 0.0)
    assert LeastLoaded().choose([small, large], RoutingHint()) is large


@given(LOADS, st.integers())
def test_power_of_two_avoids_the_most_loaded(loads: dict[str, int], seed: int) -> None:
    """The most loaded node is never chosen if it is the only one with that load."""
    policy, max_load = PowerOfTwo(Random(seed)), max(loads.values())
    chosen = loads[policy.choose(nodes(loads), RoutingHint()).peer]
    assert chosen < max_load or [*loads.values()].count(max_load) > 1 or len(loads) == 1


def test_power_of_two_spreads_evenly() -> None:
    """Equally loaded nodes get about the same number of requests."""
    policy, candidates = PowerOfTwo(Random(1)), nodes(dict.fromkeys("abcd", 0))
    counts = Counter(policy.choose(candidates, RoutingHint()).peer for _ in range(4000))
    assert all(900 < count < 1100 for count in counts.values())


def peer_of(policy: Policy, candidates: Sequence[Deployment], prompt: list[int]) -> str:
    return policy.choose(candidates, RoutingHint(token_ids(prompt))).peer


@given(st.lists(st.integers(0, 99), min_size=256, max_size=300), PROMPTS, PROMPTS, PEERS)
def test_equal_prefixes_go_to_the_same_node(
    prefix: list[int], one: list[int], other: list[int], peers: list[str]
) -> None:
    """Prompts with the same prefix go to the same node, for any instance of the policy."""
    candidates = nodes(dict.fromkeys(peers, 0))
    assert peer_of(PrefixAffinity(), candidates, prefix + one) == peer_of(PrefixAffinity(), candidates, prefix + other)


@given(st.lists(st.integers(0, 99), min_size=16), PEERS)
def test_a_prefix_keeps_its_node(prompt: list[int], peers: list[str]) -> None:
    """A prefix keeps its node when other nodes join or leave."""
    policy, candidates = PrefixAffinity(), nodes(dict.fromkeys(peers, 0))
    chosen = peer_of(policy, candidates, prompt)
    for removed in peers:
        rest = [remote for remote in candidates if remote.peer != removed]
        if removed != chosen:
            assert peer_of(policy, rest, prompt) == chosen


@given(st.lists(st.integers(0, 99), min_size=16), LOADS)
def test_an_overloaded_node_passes_its_prefix_on(prompt: list[int], loads: dict[str, int]) -> None:
    """A node at most half full keeps its prefixes, and an overloaded node passes them on to a less loaded one."""
    policy, candidates = PrefixAffinity(load_factor=1.25), nodes(loads)
    mean = sum(loads.values()) / len(loads)
    chosen, preferred = peer_of(policy, candidates, prompt), peer_of(policy, nodes(dict.fromkeys(loads, 0)), prompt)
    if loads[preferred] <= CAPACITY / 2:
        assert chosen == preferred
    elif min(loads.values()) < CAPACITY:
        assert loads[chosen] < CAPACITY
        assert loads[chosen] <= max(CAPACITY / 2, 1.25 * mean)
    else:
        assert loads[chosen] == min(loads.values())


@given(st.lists(st.integers(0, 99), min_size=64, max_size=300), st.lists(st.integers(0, 99), max_size=300), LOADS)
def test_the_next_turn_goes_to_the_same_node(prompt: list[int], following: list[int], loads: dict[str, int]) -> None:
    """A prompt that continues an earlier one goes to its node, wherever that one went, unless it is overloaded."""
    policy = PrefixAffinity()
    chosen = peer_of(policy, nodes(loads), prompt)
    assert peer_of(policy, nodes(dict.fromkeys(loads, 0)), prompt + following) == chosen
    busy = nodes({peer: CAPACITY * (peer == chosen) for peer in loads})
    assert len(loads) == 1 or peer_of(policy, busy, prompt + following) != chosen


def test_a_common_beginning_is_no_conversation() -> None:
    """Prompts that only begin alike, with the same instructions, spread over the nodes."""
    policy, candidates = PrefixAffinity(), nodes(dict.fromkeys("abcdefgh", 0))
    common = [*range(64)]
    chosen = {peer_of(policy, candidates, [*common, *range(number, number + 40)]) for number in range(0, 4000, 20)}
    assert len(chosen) == 8


def test_prefixes_are_forgotten() -> None:
    """The memory of prefixes is bounded."""
    policy, candidates = PrefixAffinity(), nodes(dict.fromkeys("ab", 0))
    for number in range(400):
        policy.choose(candidates, RoutingHint(token_ids([number] * 20_000)))
    assert 0 < len(policy._memory._peers) <= 32_768


def test_prefixes_spread() -> None:
    """Different prefixes spread evenly over the nodes; prompts shorter than a block go to the least loaded node."""
    policy, candidates = PrefixAffinity(), nodes(dict.fromkeys("abcd", 0))
    counts = Counter(peer_of(policy, candidates, [number] * 16) for number in range(4000))
    assert all(850 < count < 1150 for count in counts.values())
    assert peer_of(policy, nodes({"a": 3, "b": 0, "c": 2}), [1] * 15) == "b"


@given(st.text(min_size=1), PROMPTS, LOADS, LOADS)
def test_a_key_keeps_its_node(key: str, prompt: list[int], loads: dict[str, int], later: dict[str, int]) -> None:
    """Requests with the same key go to the same node, whatever their prompt and its load, while it is a candidate."""
    first = Sticky().choose(nodes(loads), RoutingHint(key=key)).peer
    second = Sticky().choose(nodes({**dict.fromkeys(loads, 0), **later}), RoutingHint(token_ids(prompt), key)).peer
    assert second == first or second in later.keys() - loads.keys()


def test_sticky_without_a_key() -> None:
    """Requests without a key are routed by the fallback policy."""
    policy, candidates = Sticky(RoundRobin()), nodes(dict.fromkeys("abc", 0))
    assert [policy.choose(candidates, RoutingHint(key=key)).peer for key in (None, "", None)] == [*"abc"]


def test_a_key_with_unpaired_surrogates() -> None:
    """A key with half a surrogate pair, which JSON can carry, is a key like any other."""
    assert Sticky().choose([node("a")], RoutingHint(key="\ud800")).peer == "a"


@pytest.mark.parametrize("name", [name for name, make in MAKERS.items() if make().uses_weights])
def test_weights_scale_the_shares(name: PolicyName) -> None:
    """A node of three times the weight gets about three times the requests."""
    policy, candidates = MAKERS[name](), [node("a", weight=3.0), node("b", weight=1.0)]
    counts = Counter(policy.choose(candidates, RoutingHint()).peer for _ in range(4000))
    # Two idle nodes tie at power-of-two, which then draws the first of two: 3 in 4.
    assert 2900 < counts["a"] < 3100


def test_least_loaded_compares_loads_relative_to_weights() -> None:
    """A node of twice the weight may have twice the load."""
    heavy, light = node("heavy", 3, weight=2.0), node("light", 2, weight=1.0)
    assert LeastLoaded().choose([light, heavy], RoutingHint()) is heavy


def test_a_returning_node_gets_its_share_only() -> None:
    """A node that was unavailable does not get the requests that it missed."""
    policy, candidates = RoundRobin(), nodes(dict.fromkeys("abc", 0))
    for _ in range(30):
        policy.choose(candidates[:2], RoutingHint())
    assert Counter(policy.choose(candidates, RoutingHint()).peer for _ in range(30)) == {"a": 10, "b": 10, "c": 10}
