"""A short run of each target of fuzzing; `make fuzz` runs them for long, guided by coverage."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.inputs import examples, inputs
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_target(name: str, data: st.DataObject) -> None:
    """Changed examples are decoded or refused as documented."""
    TARGETS[name](data.draw(inputs(name)))


@pytest.mark.parametrize("name", TARGETS)
def test_examples(name: str) -> None:
    """The examples themselves are valid, so that their changes reach all parts of a decoder."""
    assert examples(name)
    for example in examples(name):
        TARGETS[name](example)
