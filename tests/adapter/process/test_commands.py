"""Settings of a gateway with local nodes."""

from __future__ import annotations

from adapter.config import Settings
from adapter.process.commands import with_local_nodes
from subnet.http.node_spec import NodeSpec


def test_local_nodes_get_the_next_turn_of_their_conversations() -> None:
    """Local nodes come first, and are chosen by prefix unless a policy is set."""
    other = NodeSpec(url="http://127.0.0.1:9")
    settings = with_local_nodes(Settings(nodes=(other,)), ["http://127.0.0.1:1"], "secret")
    assert [node.url for node in settings.nodes] == ["http://127.0.0.1:1", other.url]
    assert [node.secret for node in settings.nodes] == ["secret", None]
    assert (settings.policy, settings.secret) == ("prefix-affinity", None)
    assert with_local_nodes(Settings(policy="least-loaded"), [], "secret").policy == "least-loaded"
