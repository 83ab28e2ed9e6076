"""Nodes that serve different things under one name: which of them get requests, and why the others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from subnet import MockProtocol, RemoteManager, SessionManager
from subnet.errors import NodeLost, NoNodeAvailable
from subnet.node_info import Capabilities, ModelCard, Placement
from subnet.pool.lease import Lease
from subnet.pool.requirements import Requirements
from subnet.tensors import TokenIds, token_ids
from tests.subnet.pool.test_remote_manager import Clock, ManualNode, managing, until

A, B, C = "template a", "template b", "template c"


def node(peer: str, template: str) -> MockProtocol:
    return MockProtocol(list(b"Hello"), peer=peer, chat_template=template)


def states(manager: RemoteManager) -> dict[str, str]:
    return {remote.peer: manager.status(remote).state for remote in manager.remotes}


def peers_of(manager: RemoteManager, count: int = 8) -> set[str]:
    """Return the nodes that `count` requests go to."""
    leases: list[Lease] = []
    with suppress(NoNodeAvailable):
        leases = [manager.lease("mock") for _ in range(count)]
    for lease in leases:
        lease.abandoned()
    return {lease.remote.peer for lease in leases}


class Digests:
    """Reader of digests that waits until the test gives one, by chat template."""

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self.reads: list[str] = []
        self._found: dict[str, asyncio.Future[str]] = {}
        for template, digest in (known or {}).items():
            self.give(template, digest)

    def give(self, template: str, digest: str) -> None:
        self._future(template).set_result(digest)

    def _future(self, template: str) -> asyncio.Future[str]:
        return self._found.setdefault(template, asyncio.get_running_loop().create_future())

    async def __call__(self, card: ModelCard) -> str:
        assert card.chat_template is not None
        self.reads.append(card.chat_template)
        return await self._future(card.chat_template)


CARD = ModelCard(id="m", context_length=10, tokenizer="0" * 64, chat_template=A, stop_tokens=(1,))


@pytest.mark.parametrize(
    "change",
    [
        *({"tokenizer": "1" * 64}, {"chat_template": B}, {"chat_template": None}, {"tool_template": B}),
        *({"bos_token": "<s>"}, {"eos_token": "<s>"}, {"stop_tokens": (2,)}, {"stop_tokens": ()}),
    ],
    ids=str,
)
def test_what_makes_another_card(change: dict[str, Any]) -> None:
    """Whatever prompts or the end of answers depend on makes another card, and no two of them are mixed up."""
    assert replace(CARD, **change).identity != CARD.identity
    assert replace(CARD, bos_token="<s>").identity != replace(CARD, eos_token="<s>").identity


def test_what_does_not_make_another_card() -> None:
    """Its name, and what only one node can do, make no difference."""
    assert replace(CARD, id="n", context_length=20, weights="w", created=7).identity == CARD.identity


async def test_nodes_that_differ_get_no_requests(caplog: pytest.LogCaptureFixture) -> None:
    """The first node in the table is the reference; a different one is said in the log once, and listed."""
    async with managing(node("1", A), node("2", B), node("3", A), interval=0.01) as manager:
        await until(lambda: states(manager)["2"] == "mismatch")
        assert peers_of(manager) == {"1", "3"}
        assert states(manager) == {"1": "healthy", "2": "mismatch", "3": "healthy"}
        assert manager.models()["mock"].chat_template == A
        reason = "its tokenizer, chat template or stop tokens differ from those of 1"
        assert manager.status(manager.remotes[1]).reason == reason
    assert caplog.messages == [f"node 2 gets no requests for mock: {reason}"]


async def test_the_reference_is_the_first_in_the_order_of_the_table() -> None:
    """Whichever node responds first: a node before it whose first health check is still running goes before it."""
    first, second = ManualNode("1", A), ManualNode("2", B)
    async with RemoteManager([first, second], probe_interval=60, health_check_timeout=60) as manager:
        await second.respond()
        await manager.ready("mock")
        assert peers_of(manager) == {"2"}
        await first.respond()
        await until(lambda: states(manager) == {"1": "healthy", "2": "mismatch"})
        assert peers_of(manager) == {"1"}


async def test_the_first_in_the_table_is_the_reference_also_if_it_comes_later() -> None:
    """Which of two nodes was up first when the gateway started does not matter; but only the first time."""
    first, second = ManualNode("1", A), ManualNode("2", B)
    async with RemoteManager([first, second], probe_interval=60, health_check_timeout=60) as manager:
        (await first.health_check()).set_exception(NodeLost("still starting"))
        await until(lambda: manager.remotes[0].checked)
        await second.respond()
        await manager.ready("mock")
        assert peers_of(manager) == {"2"}
        await respond(manager, first)
        await until(lambda: states(manager) == {"1": "healthy", "2": "mismatch"})
        manager._health_checkers["1"].check_soon()
        await first.respond(cards=(await node("1", C).rpc_info()).cards)
        await until(lambda: manager.models()["mock"].chat_template == C)
        assert states(manager) == {"1": "healthy", "2": "mismatch"}


async def test_nobody_takes_over_the_name_of_a_node_that_restarts(caplog: pytest.LogCaptureFixture) -> None:
    """The reference holds as long as any node may come back with it, however long that takes and whether the node
    leaves on purpose or dies. When none can, those that have had it decide, though another node is before them.
    """
    other, first, second, clock = ManualNode("0", C), ManualNode("1", A), ManualNode("2", A), Clock()
    nodes = [first, other, second]
    async with managing(*nodes, clock=clock) as manager:
        assert states(manager) == {"1": "healthy", "0": "mismatch", "2": "healthy"}
        manager._health_checkers["1"].check_soon()
        await first.respond(draining=True)
        manager.remotes[2].mark_unreachable("died", clock.now)
        for _ in range(3):
            clock.now += 3600
            await respond(manager, other)
            await until(lambda: states(manager) == {"1": "draining", "0": "mismatch", "2": "unreachable"})
            assert (peers_of(manager), dict(manager.models())) == (set(), {})
            with pytest.raises(NoNodeAvailable, match="with the expected tokenizer now"):
                manager.lease("mock")
        new = (await node("x", B).rpc_info()).cards
        manager._health_checkers["2"].check_soon()
        await second.respond(cards=new)
        await until(lambda: states(manager)["2"] == "mismatch")
        await manager.remove("1")
        assert states(manager) == {"0": "mismatch", "2": "healthy"}
    assert [line for line in caplog.messages if "reference" in line][:1] == [
        "model mock: the reference card is now that of 2"
    ]


async def test_the_reference_of_named_nodes_holds_while_a_healthy_node_has_it(caplog: pytest.LogCaptureFixture) -> None:
    """A named node before it that comes back with another card does not replace it. It moves on to that when no node
    has had it for some seconds: a node that is lost for a moment keeps it.
    """
    first, second, clock = NamedNode("1", A), NamedNode("2", B), Clock()
    async with managing(first, second, clock=clock) as manager:
        assert peers_of(manager) == {"1"}
        manager.remotes[0].mark_unreachable("gone", clock.now)
        clock.now += 4
        await respond(manager, second)
        await until(lambda: states(manager) == {"1": "unreachable", "2": "mismatch"})
        await respond(manager, first)
        await until(lambda: states(manager) == {"1": "healthy", "2": "mismatch"})
        manager.remotes[0].mark_unreachable("gone", clock.now)
        await respond(manager, second)
        await until(lambda: manager._cards._references["mock"].lost_at is not None)
        clock.now += 6
        await respond(manager, second)
        await until(lambda: states(manager)["2"] == "healthy")
        assert peers_of(manager) == {"2"}
        await respond(manager, first)
        await until(lambda: states(manager) == {"1": "mismatch", "2": "healthy"})
    assert [line for line in caplog.messages if "reference" in line][:1] == [
        "model mock: the reference card is now that of 2"
    ]


class NamedNode(ManualNode):
    """A node for which the settings name the model "mock"."""

    def placement(self, model: str) -> Placement:
        return Placement(named=model == "mock")


async def respond(manager: RemoteManager, node: ManualNode) -> None:
    """Let a health check of the node happen now."""
    manager._health_checkers[node.peer].check_soon()
    await node.respond()


async def test_a_node_that_is_removed_does_not_keep_the_reference() -> None:
    async with managing(node("1", A), node("2", B)) as manager:
        assert peers_of(manager) == {"1"}
        await manager.remove("1")
        assert peers_of(manager) == {"2"}


async def test_a_change_right_after_a_removal_is_noticed() -> None:
    """A node is removed and another one drains: the count of changes is the same as before both."""
    leaving, draining = ManualNode("1"), ManualNode("2")
    async with managing(leaving, draining, interval=60) as manager:
        assert manager.remotes[0].changes == 1
        await manager.remove("1")
        assert (peers_of(manager), [*manager.models()]) == ({"2"}, ["mock"])
        manager._health_checkers["2"].check_soon()
        await draining.respond(draining=True)
        await until(lambda: states(manager) == {"2": "draining"})
        assert peers_of(manager) == set()
        assert not manager.models()


async def test_a_draining_node_does_not_hold_the_reference_of_named_nodes() -> None:
    """A rolling upgrade: when the last node with the old card drains, the new ones that are named take over at once."""
    old, new, stranger = NamedNode("1", A), NamedNode("3", B), node("2", C)
    async with managing(old, interval=0.01) as manager:
        manager.add(stranger)
        manager.add(new)
        await new.respond()
        await until(lambda: states(manager) == {"1": "healthy", "2": "mismatch", "3": "mismatch"})
        await old.respond(draining=True)
        await until(lambda: states(manager) == {"1": "draining", "2": "mismatch", "3": "healthy"})
        assert peers_of(manager) == {"3"}


async def test_cards_that_do_the_same_are_the_same() -> None:
    """Cards are compared by their digests; until those are known, different nodes get no requests."""
    digests = Digests()
    async with managing(node("1", A), node("2", B), node("3", C)) as manager:
        manager.compare_cards(digests)
        assert peers_of(manager) == {"1"}
        assert "being compared" in (manager.status(manager.remotes[1]).reason or "")
        for template, digest in ((A, "x"), (B, "x"), (C, "y")):
            digests.give(template, digest)
        await until(lambda: states(manager) == {"1": "healthy", "2": "healthy", "3": "mismatch"})
        assert peers_of(manager) == {"1", "2"}
        assert [manager.card_digest(remote.deployment("mock")) for remote in manager.remotes] == ["x", "x", "y"]


async def test_each_card_is_read_once() -> None:
    """Nodes with equal cards share one digest."""
    async with managing(*(node(str(number), A) for number in range(5)), interval=0.01) as manager:
        digests = Digests({A: "x"})
        manager.compare_cards(digests)
        await until(lambda: manager.card_digest(manager.remotes[4].deployment("mock")) == "x")
        assert digests.reads == [A]


async def test_the_expected_card() -> None:
    """With a digest in the settings only nodes that have it get requests, whichever is first."""
    digests = Digests()
    async with managing(node("1", A), node("2", B)) as manager:
        manager.compare_cards(digests, {"mock": "y"})
        assert peers_of(manager) == set()
        digests.give(A, "x")
        digests.give(B, "y")
        await until(lambda: states(manager)["2"] == "healthy")
        assert peers_of(manager) == {"2"}
        assert manager.status(manager.remotes[0]).reason == "its card is x, but y is expected"


async def test_no_node_has_the_expected_card() -> None:
    async with managing(node("1", A)) as manager:
        manager.compare_cards(Digests({A: "x"}), {"mock": "y"})
        with pytest.raises(NoNodeAvailable, match="No node serves the model 'mock' with the expected tokenizer now"):
            manager.lease("mock")
        assert not manager.models()


async def test_a_card_that_cannot_be_used() -> None:
    """It is no reference while another can be used; if there is no other, its nodes get the requests, to report why."""
    async with managing(node("1", A), node("2", B)) as manager:
        manager.compare_cards(Digests({A: "", B: "y"}))
        await until(lambda: states(manager) == {"1": "mismatch", "2": "healthy"})
        assert manager.status(manager.remotes[0]).reason == "its tokenizer or chat template cannot be used"
        assert peers_of(manager) == {"2"}
        await manager.remove("2")
        assert peers_of(manager) == {"1"}


async def test_unusable_cards_are_not_the_same() -> None:
    async with managing(node("1", A), node("2", B)) as manager:
        manager.compare_cards(Digests({A: "", B: ""}))
        identities = {remote.deployment("mock").identity for remote in manager.remotes}
        await until(lambda: manager._cards._digests.keys() >= identities)
        assert len(peers_of(manager)) == 1


async def test_a_tokenizer_that_cannot_be_fetched() -> None:
    """It is fetched again after some seconds, at a health check, and its nodes serve requests meanwhile."""
    reads = []

    async def fail(card: ModelCard) -> str:
        reads.append(card)
        raise NoNodeAvailable("gone")

    nodes, clock = (ManualNode("1", A), ManualNode("2", A)), Clock()
    async with managing(*nodes, clock=clock) as manager:
        manager.compare_cards(fail)
        for count in (1, 1, 1):
            await until(lambda: not manager._cards._reading)
            await respond(manager, nodes[0])
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(reads) == count
        assert peers_of(manager) == {"1", "2"}
        clock.now += 6
        await respond(manager, nodes[0])
        await until(lambda: len(reads) == 2)


CHAT_CARD = ModelCard(id="mock", context_length=0, tokenizer="", lane="chat")


@pytest.mark.parametrize("kind", [ManualNode, NamedNode])
async def test_a_node_that_changes_to_the_chat_lane(kind: type[ManualNode]) -> None:
    """A model has one lane, unless the settings name it for nodes of both: then nothing else uses the name."""
    changing = kind("2", B)
    async with managing(kind("1", A), changing, node("3", C)) as manager:
        await until(lambda: states(manager)["2"] == "mismatch")
        manager._health_checkers["2"].check_soon()
        await changing.respond(cards=(CHAT_CARD,))
        if kind is ManualNode:
            await until(lambda: "on the token lane" in (manager.status(manager.remotes[1]).reason or ""))
            with pytest.raises(NoNodeAvailable):
                manager.lease("mock", requirements=Requirements("chat"))
        else:
            await until(lambda: states(manager) == {"1": "healthy", "2": "healthy", "3": "mismatch"})
            assert manager.lease("mock", requirements=Requirements("chat")).remote.peer == "2"
        assert peers_of(manager) == {"1"}


async def test_a_name_of_the_chat_lane() -> None:
    """A name that a server of the chat lane had first is not taken over by nodes of the token lane, not even while the
    server is away.
    """
    server, clock = ManualNode("1"), Clock()
    async with managing(clock=clock) as manager:
        manager.add(server)
        await server.respond(cards=(CHAT_CARD,))
        manager.add(node("2", B))
        await until(lambda: states(manager) == {"1": "healthy", "2": "mismatch"})
        manager.remotes[0].mark_unreachable("gone", clock.now)
        manager._on_change()
        assert (states(manager)["2"], dict(manager.models())) == ("mismatch", {})
        reason = "the model belongs to 1, which serves it on the chat lane; to use this node, too, name the model in"
        assert (manager.status(manager.remotes[1]).reason or "").startswith(reason)


async def test_a_named_model_without_its_nodes() -> None:
    """Before any of the nodes that the settings name was reached, nobody serves the model in their place."""
    named = NamedNode("1", A)
    async with RemoteManager([node("2", B), named], probe_interval=60, health_check_timeout=60) as manager:
        await until(lambda: states(manager)["2"] == "mismatch")
        assert (peers_of(manager), dict(manager.models())) == (set(), {})
        await named.respond()
        await until(lambda: states(manager) == {"1": "healthy", "2": "mismatch"})
        assert peers_of(manager) == {"1"}


def serves(manager: RemoteManager, number: int, models: Sequence[str]) -> bool:
    return [one.model for one in manager.remotes[number].deployments] == models


async def test_many_names_do_not_make_a_name_forgotten() -> None:
    """Nodes that claim hundreds of names cannot make the gateway forget whose a name is."""
    clock, hostile = Clock(), [ManualNode(str(number), B) for number in range(1, 7)]
    async with managing(ManualNode("0", A), *hostile, clock=clock) as manager:
        manager.remotes[0].mark_unreachable("gone", clock.now)
        (card,) = (await hostile[0].info()).cards
        for claimed in ([], ["mock"]):
            for node in hostile:
                names = [*claimed, *(f"name-{node.peer}-{number}" for number in range(60))]
                manager._health_checkers[node.peer].check_soon()
                await node.respond(cards=tuple(replace(card, id=name) for name in names))
                await until(partial(serves, manager, int(node.peer), names))
            assert "mock" not in manager.models()
        assert len(manager._cards._references) == 1 + 6 * 60


async def test_texts_are_tokenized_by_nodes_that_serve_them() -> None:
    """A node that claims the tokenizer of others with a template of its own gets no texts of prompts."""

    class Tokenizing(MockProtocol):
        texts: Sequence[str] = ()

        async def rpc_tokenize(self, texts: Sequence[str], sha256: str) -> list[TokenIds]:
            self.texts = texts
            return [token_ids([1]) for _ in texts]

    honest, hostile = Tokenizing(peer="1", chat_template=A), Tokenizing(peer="2", chat_template=B)
    async with managing(honest, hostile) as manager:
        sha256 = manager.models()["mock"].tokenizer
        await manager.tokenize(sha256, ["secret"])
        manager.remotes[0].mark_unreachable("gone", 0.0)
        manager._on_change()
        await manager.tokenize(sha256, ["secret"])
    assert (honest.texts, hostile.texts) == (["secret"], ())


async def test_mismatched_nodes_do_not_count() -> None:
    """Capacity and grammars are those of the nodes that get requests."""
    first = MockProtocol(peer="1", chat_template=A, capacity=1, capabilities=Capabilities(grammars=("json_schema",)))
    second = MockProtocol(peer="2", chat_template=B, capacity=3, capabilities=Capabilities(grammars=("lark",)))
    async with managing(first, second) as manager:
        assert states(manager)["2"] == "mismatch"
        assert manager.capacity("mock") == 1
        assert [set(kinds) for kinds in manager.grammars("mock")] == [{"json_schema"}, {"json_schema"}]


async def test_an_answer_stays_with_the_card_of_its_prompt() -> None:
    """A request goes only to nodes with the card for which its prompt was made, also if that is not the reference."""
    async with managing(node("1", A), node("2", B)) as manager:
        identity = manager.remotes[1].deployment("mock").identity
        assert manager.lease("mock", requirements=Requirements(identity=identity)).remote.peer == "2"
        with pytest.raises(NoNodeAvailable):
            manager.lease("mock", requirements=Requirements(identity="other"))
        assert not manager.has_other("mock", {"2"}, requirements=Requirements(identity=identity))
        assert manager.has_other("mock", {"1"}, requirements=Requirements(identity=identity))


async def test_a_begun_answer_is_not_continued_on_another_card() -> None:
    """The node that began an answer fails, and the only other one has a different tokenizer: an error, no splice."""
    dying = MockProtocol([*b"Hel", NodeLost("killed")], peer="1", chat_template=A)
    async with RemoteManager([dying, node("2", B)], probe_interval=60) as manager:
        await until(lambda: states(manager) == {"1": "healthy", "2": "mismatch"})
        received: list[int] = []
        async with SessionManager(manager).session("mock") as session:
            with pytest.raises(NodeLost):
                await session.run([1, 2, 3], None, lambda delta: received.extend(delta.tokens))
    assert bytes(received) == b"Hel"
