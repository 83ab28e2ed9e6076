"""Shepherd Model Gateway as the upstream server, in front of a real vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.engines.conftest import Servers
from tests.engines.fleet import Fleet, node_settings, write_config
from tests.engines.routers import Smg
from tests.engines.server import NAME, running
from tests.engines.test_vllm import LOGPROBS, STORY, asked, content
from tests.engines.test_vllm_survival import CUT, WHOLE
from tests.faults.programs import gateway

Routers = Fleet[Smg]


@pytest.fixture(scope="module")
def routers(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routers]:
    """Run a router in front of each vLLM, and a gateway in front of both."""
    with ExitStack() as stack:
        made = stack.enter_context(running([Smg(server) for server in servers.servers]))
        nodes = [node_settings(one, at, seeds=True) for at, one in enumerate(made)]
        path = write_config(tmp_path_factory.mktemp("smg"), nodes)
        fleet = Fleet(made, {"chat": stack.enter_context(gateway((), ("--config", str(path))))}, servers.servers)
        fleet.mend()
        yield fleet


@pytest.fixture
def both(routers: Routers) -> Routers:
    """Return the routers, of which all that was killed has been started again."""
    routers.mend()
    return routers


def test_detection(both: Routers) -> None:
    """The router is an OpenAI-compatible server like any other."""
    lines = both.gateways["chat"].lines
    assert sum(f"OpenAI-compatible server, serves {NAME}, chat lane" in line for line in lines) == 2, lines


@pytest.mark.parametrize("stream", [True, False])
def test_greedy_with_logprobs(both: Routers, servers: Servers, stream: bool) -> None:
    """Text, logprobs, finish reason and usage are those of the vLLM behind the router."""
    question = asked(STORY, stream=stream, **LOGPROBS)
    servers.ask_directly(question)  # so that the prompt is in vLLM's cache for all
    own, answer = servers.ask_directly(question), both.ask("chat", question)
    assert answer.complete, answer.events
    assert content(answer) == content(own)


@pytest.mark.parametrize("more", [{"temperature": 7}, {"temperature": "hot"}])
def test_refused(both: Routers, more: dict[str, Any]) -> None:
    """What the router or the vLLM behind it refuses is the client's mistake."""
    answer = both.ask("chat", asked(STORY, **more))
    assert answer.status == 400, answer.events
    assert both.states("chat") == {"healthy"}


def test_more_tokens_than_the_context(both: Routers) -> None:
    """A limit that vLLM refuses behind the router is bounded, and a header says so."""
    answer = both.ask("chat", asked(STORY, max_tokens=5000, stop=["lighthouse"]))
    assert answer.complete, answer.events
    assert answer.headers["x-max-tokens-bounded"]
    assert both.states("chat") == {"healthy"}


@pytest.mark.parametrize("sampled", [{}, {"temperature": 1.0}], ids=["greedy", "unseeded"])
def test_the_router_is_killed(both: Routers, sampled: dict[str, Any]) -> None:
    """The other router repeats what was sent and goes on."""
    answer = both.ask_and_kill("chat", asked(WHOLE, **sampled), CUT)
    assert answer.complete, answer.events
    assert answer.switched == 1


def test_the_backend_is_killed(both: Routers, servers: Servers) -> None:
    """The router ends the stream when its backend dies, and the other router goes on to the same answer."""
    whole = both.ask("chat", WHOLE)
    answer = both.ask_and_kill("chat", WHOLE, CUT, servers.first)
    assert answer.complete, answer.events
    assert answer.switched == 1
    assert answer.choices[0].text == whole.choices[0].text
