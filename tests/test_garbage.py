"""The garbage collector leaves what lives long alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from adapter.process.gateway import settle


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_what_was_there_is_not_looked_at() -> None:
    """Objects from before are out of collections, those that come later are not."""
    before = [[0]]
    settle()
    after = [[1]]
    seen = {id(found) for found in gc.get_objects()}
    assert id(before) not in seen
    assert id(after) in seen
