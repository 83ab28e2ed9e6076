"""The documents: tables are up to date, snippets run, and commands, settings and links are valid."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapter.api.common import contract
from adapter.api.routes import ROUTES
from adapter.cli import build_parser as adapter_parser
from adapter.config import ModelSpec, Settings, reader
from adapter.counts import Counts
from adapter.errors import rows
from adapter.metrics import families
from subnet import RemoteManager
from subnet.cli import build_parser as subnet_parser
from subnet.config.reader import struct_table
from subnet.http.node_spec import NodeSpec
from subnet.node.settings import NodeSettings
from subnet.node.settings import reader as node_reader

ROOT = Path(__file__).parent.parent
DOCS = [
    ROOT / name
    for name in (
        "README.md",
        "adapter/README.md",
        "subnet/README.md",
        "deploy/README.md",
        "tests/README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    )
]
FAULTS = ROOT / ".pytest_cache" / "faults.md"
"""The fault table of the last run of tests/faults."""
ADDRESS = "http://127.0.0.1:8000"
LONGEST_README = 200

_TABLE = re.compile(r"(<!-- ([\w-]+): generated -->\n)(.*?)(<!-- /\2 -->)", re.DOTALL)
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")


def routes() -> str:
    lines = ["| endpoint | |", "|---|---|"]
    lines += [f"| `{one.method.upper()} {one.path}` | {one.summary} |" for one in ROUTES]
    return "\n".join(lines) + "\n"


def errors() -> str:
    lines = ["| status | `type` | `code` | when |", "|---|---|---|---|"]
    lines += [f"| {row.status} | `{row.type}` | {_code(row.code)} | {row.when} |" for row in rows()]
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """Return the table of metrics."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for family in families(Counts(), RemoteManager([])):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in vars(family)["_labelnames"])
        lines.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def _code(code: str | None) -> str:
    return f"`{code}`" if code else "names the mistake"


TABLES: dict[str, Callable[[], str]] = {
    "settings": reader.table,
    "node-settings": node_reader.table,
    "node-table": lambda: struct_table(NodeSpec),
    "model-table": lambda: struct_table(ModelSpec),
    "parameters": contract.table,
    "routes": routes,
    "errors": errors,
    "metrics": metrics,
}


def generated(text: str) -> str:
    """Return a document with up-to-date tables; the fault table is replaced only if its tests have just run."""

    def table(match: re.Match[str]) -> str:
        name, old = match[2], match[3]
        if name == "faults":
            new = FAULTS.read_text() if FAULTS.is_file() else ""
            # A run of some of the tests has only some of the rows and columns.
            return match[1] + (new if is_complete(new, old) else old) + match[4]
        return match[1] + TABLES[name]() + match[4]

    return _TABLE.sub(table, text)


def is_complete(new: str, old: str) -> bool:
    """Return whether the fault table `new` has a result in every cell in which `old` has one."""
    return _cells(new) >= _cells(old)


def _cells(table: str) -> set[tuple[str, str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {(row[0], feature) for row in rows for feature, cell in zip(rows[0], row, strict=True) if cell}


def test_partial_fault_table_is_not_copied() -> None:
    """The fault table in the documents is replaced only by one with all of its cells."""
    whole = "| fault | a | b |\n| --- | --- | --- |\n| killed | same | same |\n| reset |  | same |\n"
    assert is_complete(whole.replace("same", "**FAILED**"), whole)
    assert not is_complete(whole.replace("| reset |  | same |\n", ""), whole)
    assert not is_complete("| fault | a |\n| --- | --- |\n| killed | same |\n| reset | same |\n", whole)
    assert not is_complete("", whole)


def fences(*kinds: str) -> list[tuple[Path, str, str]]:
    """Return document, language and text of every snippet in these languages."""
    found = [(path, kind, text) for path in DOCS for kind, text in _FENCE.findall(path.read_text())]
    return [one for one in found if one[1] in kinds]


def identify(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else ""


@pytest.mark.parametrize("path", DOCS, ids=identify)
def test_generated_tables_are_up_to_date(path: Path) -> None:
    """The generated tables in each document are up to date; `python -m tests.test_docs` writes them."""
    text = path.read_text()
    assert [(name, table) for _, name, table, _ in _TABLE.findall(text) if name != "faults"] == [
        (name, TABLES[name]()) for _, name, _, _ in _TABLE.findall(text) if name != "faults"
    ]
    assert text.count("generated -->") == len(_TABLE.findall(text))


def test_every_table_is_in_a_document() -> None:
    """Each generated table is in exactly one document."""
    names = [name for path in DOCS for _, name, _, _ in _TABLE.findall(path.read_text())]
    assert sorted(names) == sorted([*TABLES, "faults"])


@pytest.mark.parametrize(("path", "kind", "code"), fences("sh", "python"), ids=identify)
def test_snippets_run(path: Path, kind: str, code: str, real: str, tmp_path: Path) -> None:
    """Each snippet in a document runs unchanged, except for the address, without an error, and prints something."""
    command = ["bash", "-ec"] if kind == "sh" else [sys.executable, "-W", "error", "-c"]
    done = subprocess.run(
        [*command, code.replace(ADDRESS, real)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert '"error"' not in done.stdout


@pytest.mark.parametrize(("path", "kind", "code"), fences("toml"), ids=identify)
def test_settings_are_valid(path: Path, kind: str, code: str, tmp_path: Path) -> None:
    """Each settings file in a document is valid for a gateway or a node."""
    file = tmp_path / "settings.toml"
    file.write_text(code)
    loader = node_reader if code.startswith("# node.toml") else reader
    assert isinstance(loader.load(str(file), environ={}), Settings | NodeSettings)
    assert tomllib.loads(code)


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Yield every command in the documents as words, without its environment variables."""
    for path, _, text in fences("console"):
        for line in text.replace("\\\n", " ").splitlines():
            words = line.removeprefix("$ ").partition(" # ")[0].split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                del words[0]
            if line.startswith("$ ") and words:
                yield path, words


@pytest.mark.parametrize(("path", "words"), list(commands()), ids=identify)
def test_commands_exist(path: Path, words: list[str]) -> None:
    """Our commands and make targets in a document exist, with the options shown."""
    program = words[0].rpartition("/")[2]
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in words[1:] if re.fullmatch("[a-z]+", word)} <= targets
    elif program in ("adapter", "subnet"):
        parser = adapter_parser() if program == "adapter" else subnet_parser()
        parser.parse_args([word.strip("\"'") for word in words[1:]])


@pytest.mark.parametrize("path", DOCS, ids=identify)
def test_links_are_valid(path: Path) -> None:
    """Links in a document to files and sections are valid."""
    for link in (one for match in _LINK.findall(path.read_text()) for one in match if one):
        if link.startswith(("http://", "https://")):
            continue
        file, _, section = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if section:
            assert section in anchors(target), link


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's sections, as GitHub makes them."""
    text = _FENCE.sub("", path.read_text())
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short() -> None:
    """The README is at most LONGEST_README lines long; reference material is in other documents."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README


@pytest.mark.parametrize("path", [path for path in DOCS if path.parent != ROOT], ids=identify)
def test_a_reference_has_a_table_of_contents(path: Path) -> None:
    """The table of contents of each reference document links to all its sections."""
    head, *_ = re.split(r"^## ", path.read_text(), maxsplit=1, flags=re.MULTILINE)
    sections = re.findall(r"^## (.*)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    linked = {link[0].removeprefix("#") for link in _LINK.findall(path.read_text())}
    named = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in sections}
    assert named - {"contents"} <= linked, head


if __name__ == "__main__":
    for document in DOCS:
        document.write_text(generated(document.read_text()))
