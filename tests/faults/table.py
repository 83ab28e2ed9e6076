"""The fault table: what happens to an answer, by fault and feature."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cases import FEATURES
from tests.faults.features import FEATURES as MORE_FEATURES

FAULTS = Path(__file__).parent.parent.parent / ".pytest_cache" / "faults.md"
"""File from which `python -m tests.test_docs` copies the table into the documentation."""


def write_table(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as "cell" (fault, feature, text if the test passed), and write it to FAULTS."""
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
