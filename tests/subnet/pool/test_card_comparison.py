"""Nodes that serve different things under one name: which of them get requests, and why the others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import pytest

from subnet import MockProtocol, RemoteManager, SessionManager
from subnet.errors import NodeLost, NoNodeAvailable
from subnet.node_info import Capabilities, ModelCard
from subnet.pool.lease import Lease
from subnet.pool.requirements import Requirements
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


async def test_the_reference_holds_while_a_healthy_node_has_it(caplog: pytest.LogCaptureFixture) -> None:
    """A node before it that comes back with another card does not replace it. It moves on when no node has had it for
    some seconds: a node that is lost for a moment keeps it.
    """
    first, second, clock = ManualNode("1", A), ManualNode("2", B), Clock()
    async with RemoteManager([first, second], probe_interval=60, health_check_timeout=60, clock=clock) as manager:
        (await first.health_check()).set_exception(NodeLost("gone"))
        await until(lambda: manager.remotes[0].checked)
        await second.respond()
        await manager.ready("mock")
        await respond(manager, first)
        await until(lambda: states(manager) == {"1": "mismatch", "2": "healthy"})
        assert peers_of(manager) == {"2"}
        manager.lease("mock").failed(NodeLost("the connection broke"))
        assert states(manager) == {"1": "mismatch", "2": "unreachable"}
        clock.now += 4
        await second.respond()
        await until(lambda: states(manager) == {"1": "mismatch", "2": "healthy"})
        manager.lease("mock").failed(NodeLost("the connection broke"))
        clock.now += 6
        await respond(manager, first)
        await until(lambda: states(manager)["1"] == "mismatch")
        clock.now += 6
        await respond(manager, first)
        await until(lambda: states(manager)["1"] == "healthy")
        assert peers_of(manager) == {"1"}
    assert [line for line in caplog.messages if "reference" in line] == [
        "model mock: the card of 1 is the reference now"
    ]


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


async def test_a_draining_node_does_not_hold_the_reference() -> None:
    """A rolling upgrade: when the last node with the old card drains, the new ones take over."""
    old = ManualNode("1", A)
    async with managing(old, interval=0.01) as manager:
        manager.add(node("2", B))
        await until(lambda: states(manager).get("2") == "mismatch")
        await old.respond(draining=True)
        await until(lambda: states(manager) == {"1": "draining", "2": "healthy"})
        assert peers_of(manager) == {"2"}


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


async def test_a_node_that_changes_to_the_chat_lane() -> None:
    """A node that was mismatched on the token lane gets requests when it serves the model on the chat lane."""
    changing = ManualNode("2", B)
    async with managing(node("1", A), changing) as manager:
        await until(lambda: states(manager)["2"] == "mismatch")
        manager._health_checkers["2"].check_soon()
        await changing.respond(cards=(ModelCard(id="mock", context_length=0, tokenizer="", lane="chat"),))
        await until(lambda: states(manager)["2"] == "healthy")
        assert manager.lease("mock", requirements=Requirements("chat")).remote.peer == "2"


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
