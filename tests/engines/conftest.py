"""Two real vLLMs, and a gateway in front of them for each lane, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from subnet.node_info import Lane
from tests.engines.vllm_server import NAME, VllmServer, vllm_servers
from tests.faults.answers import Answer
from tests.faults.asking import OnText, Question, ask
from tests.faults.programs import Gateway, gateway
from tests.processes import until

LANES: tuple[Lane, ...] = ("token", "chat")


class Servers:
    """Gateways by lane, each in front of the same `servers`, of which it prefers the first."""

    def __init__(self, servers: list[VllmServer], gateways: dict[Lane, Gateway]) -> None:
        self.servers = servers
        self.gateways = gateways

    @property
    def vllm(self) -> VllmServer:
        """The server that answers."""
        return self.servers[0]

    def ask(self, lane: Lane, question: Question, on_text: OnText | None = None) -> Answer:
        return ask(self.gateways[lane].url, _named(question), on_text)

    def ask_directly(self, question: Question) -> Answer:
        """Send a question to vLLM itself."""
        return ask(self.vllm.url, _named(question))

    def mend(self) -> None:
        """Start killed servers again and wait until both gateways use them."""
        for server in self.servers:
            server.again()
        for server in self.servers:
            server.wait()
        until(self._well, 60)

    def _well(self) -> bool:
        states = {row["state"] for one in self.gateways.values() for row in one.table}
        return states <= {"healthy", "breaker-half-open"}


def _named(question: Question) -> Question:
    return msgspec.structs.replace(question, model=NAME)


def config(folder: Path, servers: list[VllmServer], lane: Lane) -> Path:
    path = folder / f"{lane}.toml"
    # Less than the last request of a full queue waits for its first token.
    node = '[[nodes]]\nurl = "{}"\nlane = "{}"\npriority = {}\nfirst_token_timeout = 5\n'
    path.write_text("".join(node.format(server.url, lane, at) for at, server in enumerate(servers)))
    return path


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("gateways")
    with ExitStack() as stack:
        running = stack.enter_context(vllm_servers(2))
        flags = {lane: ("--config", str(config(folder, running, lane))) for lane in LANES}
        made = Servers(running, {lane: stack.enter_context(gateway((), flags[lane])) for lane in LANES})
        made.mend()
        yield made


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> Lane:
    return request.param  # type: ignore[no-any-return]
