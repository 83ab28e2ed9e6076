"""Size of prompt pieces in the transformers engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.engines.transformers.pace import PassPace


def settled(fixed: float, per_token: float, pace: PassPace | None = None) -> PassPace:
    """Return a pace after a prompt and an answer, for passes that take `fixed` seconds plus `per_token` per token."""
    pace = pace or PassPace()
    pace.record_pass(1, fixed + per_token)
    for _ in range(60):
        rows = pace.rows()
        pace.record_pass(rows, fixed + rows * per_token)
        pace.record_pass(1, fixed + per_token)
    return pace


@given(st.floats(1e-4, 1.0), st.floats(1e-5, 1e-2))
def test_a_piece_takes_four_passes_or_80_ms(fixed: float, per_token: float) -> None:
    """A piece of a prompt takes four passes or 80 ms, within the bounds of its size, on any machine."""
    rows = settled(fixed, per_token).rows()
    assert 4 <= rows <= 512
    target = max(0.08, 4 * (fixed + per_token))
    assert rows == 4 or fixed + rows * per_token <= target * 1.1
    assert rows == 512 or fixed + (rows + 2) * per_token >= target * 0.9


def test_pieces_shrink_if_the_machine_slows_down() -> None:
    """When a token takes ten times as long, pieces shrink to a tenth."""
    pace = settled(0.02, 0.0002)
    before = pace.rows()
    assert settled(0.02, 0.002, pace).rows() == pytest.approx(before / 10, rel=0.2)
