"""The README: its tables are generated and its snippets run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapter.settings import reader

README = Path(__file__).parent.parent / "README.md"
_SETTINGS = re.compile(r"(<!-- settings: .*?-->\n).*?(<!-- /settings -->)", re.DOTALL)
_SNIPPET = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ADDRESS = "http://127.0.0.1:8000"


def snippets() -> list[tuple[str, str]]:
    found = [(kind, code) for kind, code in _SNIPPET.findall(README.read_text()) if "make " not in code]
    assert [kind for kind, _ in found] == ["sh", "python", "python", "python"]
    return found


def with_settings(text: str) -> str:
    """The README with the settings table that the code has."""
    return _SETTINGS.sub(lambda match: match[1] + reader.table() + match[2], text)


def test_the_settings_table_is_that_of_the_code() -> None:
    """The table in the README is the one that help and checks come from; `python -m tests.test_readme` writes it."""
    text = README.read_text()
    assert text == with_settings(text)


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
    README.write_text(with_settings(README.read_text()))
