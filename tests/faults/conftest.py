"""The pool that most fault tests use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults import lab, programs
from tests.faults.cases import Case, cases

Record = Callable[[str, object], None]


@pytest.fixture(scope="package")
def three() -> Iterator[lab.Pool]:
    """Run three echo nodes at 200 tokens/s, and a gateway with timeouts below a second."""
    with lab.pool(programs.PACED, programs.PACED, programs.PACED) as pool:
        yield pool


@pytest.fixture
def pool(three: lab.Pool) -> Iterator[lab.Pool]:
    """The shared pool; after each test it must recover with nothing left behind."""
    yield three
    three.heal()


@pytest.fixture(scope="package")
def undisturbed(three: lab.Pool) -> dict[str, Case]:
    return cases(three.ask)
