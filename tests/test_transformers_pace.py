"""How long pieces of a prompt are, for passes whose time has a fixed part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.transformers.pace import PassPace


def settled(one: float, each: float, pace: PassPace | None = None) -> PassPace:
    """After a prompt in pieces and an answer, on a machine whose passes take so long, plus that for each token."""
    pace = pace or PassPace()
    pace.passed(1, one + each)
    for _ in range(60):
        rows = pace.rows()
        pace.passed(rows, one + rows * each)
        pace.passed(1, one + each)
    return pace


@given(st.floats(1e-4, 1.0), st.floats(1e-5, 1e-2))
def test_a_piece_takes_four_passes_or_80_ms(one: float, each: float) -> None:
    """Within the bounds of a piece, whatever the machine."""
    rows = settled(one, each).rows()
    assert 4 <= rows <= 512
    wanted = max(0.08, 4 * (one + each))
    assert rows == 4 or one + rows * each <= wanted * 1.1
    assert rows == 512 or one + (rows + 2) * each >= wanted * 0.9


def test_it_follows_a_machine_that_slows_down() -> None:
    """When a token costs ten times as much, pieces become a tenth."""
    pace = settled(0.02, 0.0002)
    before = pace.rows()
    assert settled(0.02, 0.002, pace).rows() == pytest.approx(before / 10, rel=0.2)
