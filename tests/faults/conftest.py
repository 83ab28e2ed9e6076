"""The pool that most faults happen to, and the table at the end: fault x feature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import lab, programs
from tests.faults.cases import FEATURES, Case, cases
from tests.faults.features import FEATURES as MORE_FEATURES

FAULTS = Path(__file__).parent.parent.parent / ".pytest_cache" / "faults.md"
"""Where `python -m tests.test_docs` finds the table, to write it into the documentation."""

Record = Callable[[str, object], None]


@pytest.fixture(scope="package")
def three() -> Iterator[lab.Pool]:
    """Three echo nodes at two hundred tokens a second, and a gateway that notices silence after half a second."""
    with lab.pool(programs.PACED, programs.PACED, programs.PACED) as pool:
        yield pool


@pytest.fixture
def pool(three: lab.Pool) -> Iterator[lab.Pool]:
    """The same pool for all tests: after each it must come back to where it was, with nothing left behind."""
    yield three
    three.heal()


@pytest.fixture(scope="package")
def undisturbed(three: lab.Pool) -> dict[str, Case]:
    return cases(three.ask)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests recorded under "cell": (fault, feature, what it says if the test passed)."""
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
    """As Markdown."""
    found = dict.fromkeys(feature for row in cells.values() for feature in row)
    features = [feature for feature in (*FEATURES, *MORE_FEATURES) if feature in found]
    rows = [["what happens to the node", *features], ["---"] * (len(features) + 1)]
    rows += [[fault, *(row.get(feature, "") for feature in features)] for fault, row in cells.items()]
    for row in rows:
        yield f"| {' | '.join(row)} |"
