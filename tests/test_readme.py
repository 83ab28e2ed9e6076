"""The README: its tables are generated and its snippets run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapter.schema import contract
from adapter.settings import reader

README = Path(__file__).parent.parent / "README.md"
TABLES = {"settings": reader.table, "parameters": contract.table}
_TABLE = re.compile(r"(<!-- (\w+): generated.*?-->\n).*?(<!-- /\2 -->)", re.DOTALL)
_SNIPPET = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ADDRESS = "http://127.0.0.1:8000"


def snippets() -> list[tuple[str, str]]:
    found = [(kind, code) for kind, code in _SNIPPET.findall(README.read_text()) if "make " not in code]
    assert [kind for kind, _ in found] == ["sh", "python", "python", "python"]
    return found


def with_tables(text: str) -> str:
    """The README with the tables that the code has."""
    return _TABLE.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def test_the_tables_are_those_of_the_code() -> None:
    """The tables in the README are the ones that checks come from; `python -m tests.test_readme` writes them."""
    text = README.read_text()
    assert {name for _, name, _ in _TABLE.findall(text)} == TABLES.keys()
    assert text == with_tables(text)


@pytest.mark.parametrize("number", range(4))
def test_snippets_run(number: int, real: str, tmp_path: Path) -> None:
    """Each snippet, as it stands there but for the port, prints something and fails at nothing."""
    kind, code = snippets()[number]
    command = ["bash", "-ec"] if kind == "sh" else [sys.executable, "-W", "error", "-c"]
    done = subprocess.run(
        [*command, code.replace(ADDRESS, real)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert '"error"' not in done.stdout


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
