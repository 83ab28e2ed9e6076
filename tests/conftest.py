"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.processes import adapter_up
from tests.relay import Relay

pytest_plugins = ["tests.real_engine"]

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """In front of a gateway with two nodes that run the real model."""
    with adapter_up("--threads", "1", directory=str(tmp_path_factory.mktemp("up"))) as running:
        with Relay(running.url) as relay:
            yield relay


@pytest.fixture(scope="session")
def real(relay: Relay) -> str:
    """The relay's address: all that comes through it is checked."""
    return relay.url
