"""What holds for all tests with clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.relay import Relay


@pytest.fixture(autouse=True)
def _checked(relay: Relay) -> Iterator[None]:
    """Every answer and every event that a test was sent is as OpenAI's API would have it."""
    yield
    relay.check()
