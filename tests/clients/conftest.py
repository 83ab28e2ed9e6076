"""What holds for all tests with clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.relay import Relay


@pytest.fixture(autouse=True)
def _checked(relay: Relay) -> Iterator[None]:
    """Every answer and every event that a test was sent is as OpenAI's API would have it."""
    yield
    relay.check()


@pytest.fixture
def client(real: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=real + "/v1", api_key="any", max_retries=0) as client:
        yield client
