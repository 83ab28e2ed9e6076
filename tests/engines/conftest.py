"""Servers behind a gateway, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from subnet.node_info import Lane
from tests.engines.fleet import Fleet, node_settings, write_config
from tests.engines.server import running
from tests.engines.vllm_server import VllmServer
from tests.faults.programs import gateway

LANES: tuple[Lane, ...] = ("token", "chat")
Servers = Fleet[VllmServer]


@pytest.fixture(scope="session")
def vllms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Run two vLLMs behind a gateway for each lane."""
    with ExitStack() as stack:
        both = stack.enter_context(running([VllmServer(), VllmServer()]))
        gateways = {}
        for lane in LANES:
            # Less than the last request of a full queue waits for its first token.
            nodes = [node_settings(one, at, lane=lane, first_token_timeout=5) for at, one in enumerate(both)]
            path = write_config(tmp_path_factory.mktemp(lane), nodes)
            gateways[lane] = stack.enter_context(gateway((), ("--config", str(path))))
        made = Fleet(both, gateways)
        yield made


@pytest.fixture(scope="module")
def servers(vllms: Servers) -> Servers:
    """Return the vLLMs, of which those that the last file killed have been started again."""
    vllms.mend()
    return vllms


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> Lane:
    return request.param  # type: ignore[no-any-return]
