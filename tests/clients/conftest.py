"""Fixtures of all client tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.relay import Relay


@pytest.fixture(autouse=True)
def _checked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after each test that every response and event it received has OpenAI's format. Tests with a gateway of
    their own (`fakes.gateway`, which checks by itself) do not start the real one.
    """
    yield
    if "relay" in request.fixturenames:
        relay: Relay = request.getfixturevalue("relay")
        relay.check()


@pytest.fixture
def client(real: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=real + "/v1", api_key="any", max_retries=0) as client:
        yield client
