"""The pool that most fault tests use, and the fault table printed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import lab, programs
from tests.faults.cases import FEATURES, Case, cases
from tests.faults.features import FEATURES as MORE_FEATURES

FAULTS = Path(__file__).parent.parent.parent / ".pytest_cache" / "faults.md"
"""File from which `python -m tests.test_docs` copies the table into the documentation."""

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as "cell": (fault, feature, text if the test passed)."""
    cells: dict[str, dict[str, str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == "cell":
                    fault, feature, says = value
                    cells.setdefault(fault, {})[feature] = says if outcome == "passed" else "**FAILED**"
    if cells:
        terminalreporter.section("a node fails")
        lines = list(_table(cells))
        for line in lines:
            terminalreporter.write_line(line)
        FAULTS.parent.mkdir(exist_ok=True)
        FAULTS.write_text("\n".join(lines) + "\n")


def _table(cells: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    found = dict.fromkeys(feature for row in cells.values() for feature in row)
    features = [feature for feature in (*FEATURES, *MORE_FEATURES) if feature in found]
    rows = [["what happens to the node", *features], ["---"] * (len(features) + 1)]
    rows += [[fault, *(row.get(feature, "") for feature in features)] for fault, row in cells.items()]
    for row in rows:
        yield f"| {' | '.join(row)} |"
