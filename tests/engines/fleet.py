"""Several servers of the same model, and gateways in front of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, Generic, TypeVar

import msgspec

from subnet.node_info import Lane
from tests.engines.server import NAME, Server
from tests.faults.answers import Answer
from tests.faults.asking import OnText, Question, ask
from tests.faults.programs import Gateway
from tests.processes import until

S = TypeVar("S", bound=Server)


class Fleet(Generic[S]):
    """Gateways by lane, each in front of the same `servers`, of which it prefers the first.

    `behind` are servers without which those cannot answer.
    """

    def __init__(self, servers: Sequence[S], gateways: Mapping[Lane, Gateway], behind: Sequence[Server] = ()) -> None:
        self.servers = servers
        self.gateways = gateways
        self._behind = behind

    @property
    def first(self) -> S:
        """The server that answers."""
        return self.servers[0]

    def ask(self, lane: Lane, question: Question, on_text: OnText | None = None) -> Answer:
        return ask(self.gateways[lane].url, _to(NAME, question), on_text)

    def ask_directly(self, question: Question) -> Answer:
        """Send a question to the server itself."""
        return ask(self.first.url, _to(self.first.name, question))

    def ask_and_kill(self, lane: Lane, question: Question, cut: int, victim: Server | None = None) -> Answer:
        """Kill a server, by default the one that answers, after `cut` pieces of text."""

        def on_text(pieces: int) -> None:
            if pieces == cut:
                (victim or self.first).kill()

        return self.ask(lane, question, on_text)

    def ask_all_and_kill(self, question: Question, cut: int) -> dict[Lane, Answer]:
        """Ask through all gateways at once, and kill the server that answers once each has `cut` pieces of text."""
        reached = Barrier(len(self.gateways), self.first.kill, timeout=60)

        def on_text(pieces: int) -> None:
            if pieces == cut:
                reached.wait()

        with ThreadPoolExecutor(len(self.gateways)) as pool:
            asked = {lane: pool.submit(self.ask, lane, question, on_text) for lane in self.gateways}
        return {lane: one.result() for lane, one in asked.items()}

    def mend(self) -> None:
        """Start killed servers again and wait until all gateways use them."""
        everything: list[Server] = [*self._behind, *self.servers]
        for server in everything:
            server.again()
        for server in everything:
            server.wait()
        until(self._well, 60)

    def states(self, lane: Lane) -> set[str]:
        """Return the states of the servers, as the gateway sees them."""
        return {row["state"] for row in self.gateways[lane].table}

    def _well(self) -> bool:
        return all(self.states(lane) <= {"healthy", "breaker-half-open"} for lane in self.gateways)


def _to(model: str, question: Question) -> Question:
    return msgspec.structs.replace(question, model=model)


def node_settings(server: Server, priority: int, **more: Any) -> dict[str, Any]:
    """Return the settings of a node."""
    return {"url": server.url, "priority": priority, **more}


def write_config(folder: Path, nodes: Sequence[Mapping[str, Any]]) -> Path:
    """Write a gateway's settings file with these nodes."""
    path = folder / "gateway.toml"
    tables = ["".join(f"{name} = {_toml(value)}\n" for name, value in node.items()) for node in nodes]
    path.write_text("".join(f"[[nodes]]\n{table}" for table in tables))
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)
