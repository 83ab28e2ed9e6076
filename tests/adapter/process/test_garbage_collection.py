"""Garbage collection after startup."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from adapter.process.gateway import freeze_startup_objects


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


def test_objects_from_startup_are_frozen() -> None:
    """Objects from before the freeze are excluded from garbage collection, later ones are not."""
    before = [[0]]
    freeze_startup_objects()
    after = [[1]]
    seen = {id(each) for each in gc.get_objects()}
    assert id(before) not in seen
    assert id(after) in seen
