"""Texts that users read have the field's terms and are in idiomatic English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_docs import DOCS

ROOT = Path(__file__).parent.parent

PHRASES = {
    r"patien(ce|t)|impatient": "queue timeout, timeout",
    r"how (it|they|a node|nodes?|every node) (is|are|was)\b(?! (run|laid|done|made|\w+(ed|en)\b))": "state, health",
    r"did not say|does not say|said nothing|says nothing|when it last said": "timed out, reported, last health check",
    r"signs? of life": "keep-alive",
    r"\b(is|are|was|goes|went) away\b": "unreachable",
    r"\bis here\b|\bare here\b|\bcame back\b|\bnode is there\b": "healthy",
    r"least level": "minimum log level",
    r"\bso many\b|\bas many as\b": "a number, or 'this number of'",
    r"none of (ours|the gateway's|its|them|his|theirs)|that (is|are) none\b": "invalid, unknown",
    r"(?<!there )\b(is|are) no (?!longer|such|need|more|less|different)[A-Za-z]+\b": "is not a ...",
    r"\bits own affair|in a way of its own|a way of their own": "decides, unrecognised",
    r"\b(nobody|no one) (knows|here|is|answers|serves)\b": "unknown, no client, no node",
    r"\bknows no\b|\btells no\b|\bgives no\b|\bmakes no\b|\btakes no\b": "does not support, does not return",
    r"(is|are) taken\b(?! (from|into))": "accepted, in use",
    r"want of (room|capacity)|\broom on\b|for room\b": "capacity",
    r"\bstand(s|ing)? (at|in for|behind|there)\b": "runs at, replaces",
    r"go(es)? (on )?round in a circle": "cycle",
    r"\bgo(es)? on with\b|\bgone on with\b": "continue",
    r"\b(is|are|was) begun\b|\bbegun anew\b": "restart, again",
    r"\bhear(s|d)?\b (503|of|from|what)": "gets, receives",
    r"\bmay be asked again|to be asked again|to be tried again": "retry in ...",
    r"\bask(s|ed)? (how|what stands)": "checks, detects",
    r"\bwhat there is\b|\bwhat stands\b|\bwhat is there\b": "a noun",
    r"\bcannot be had\b|\bcan be had\b": "available, can be loaded",
    r"\bof a kind that\b": "of a type that",
    r"\bthose that there are\b|\bas it then is\b|\bas it is then\b": "a noun",
    r"the engine broke|\bbroke off\b|\bgave up\b": "engine error, failed, stopped",
    r"\ba (trouble|doubt)\b|\bthe (trouble|doubt)\b": "error, recheck",
    r"\bseldom\b|\bhitherto\b|\bwherefrom\b|\btherein\b": "rarely, ...",
}
_PATTERN = {re.compile(phrase, re.IGNORECASE): instead for phrase, instead in PHRASES.items()}
# Sent to models or to other programs, not read by people.
_NOT_PROSE = ("adapter/prompt/tools_as_text.py", "subnet/models/patterns.py", "subnet/protocols/openai/quirks.py")


def docstrings(tree: ast.Module) -> set[int]:
    """Return the ids of docstrings, which users of the commands do not see."""
    bodies = (node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    return {id(node.value) for node in bodies}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string with at least two words in a module, f-strings as a whole."""
    tree = ast.parse(path.read_text())
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            text = node.value
        else:
            continue
        if " " in text.strip():
            yield node.lineno, text


def found_in(text: str) -> list[str]:
    return [f"{match[0]!r} (say: {say})" for pattern, say in _PATTERN.items() for match in pattern.finditer(text)]


@pytest.mark.parametrize("package", ["adapter", "subnet"])
def test_messages(package: str) -> None:
    """Errors, log lines, help and descriptions of settings have none of the listed phrases."""
    paths = [path for path in sorted((ROOT / package).rglob("*.py")) if str(path.relative_to(ROOT)) not in _NOT_PROSE]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in paths
        for line, text in texts(path)
        for what in found_in(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents(path: Path) -> None:
    """Documents have none of the listed phrases."""
    # Names of code are replaced; generated tables are checked at their source.
    text = re.sub(r"`[^`\n]+`", "NAME", " ".join(path.read_text().split()))
    wrong = [f"{path.name}: {what}" for what in found_in(text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*")), ids=lambda path: path.name)
def test_examples_for_operators(path: Path) -> None:
    """Comments in the deployment examples have none of the listed phrases."""
    if path.suffix in (".toml", ".service") or path.name == "Dockerfile":
        wrong = found_in(path.read_text())
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "http://a did not say within 3 s how it is",
        "node X is away: gone",
        "least level that is logged",
        "so many prompts can have 20 completions each",
        "X is no vLLM",
        "seconds to wait for room on a full node, or for a lost one to come back",
        "4 of 4 slots are taken",
        "the engine broke; the node's log tells why",
    ],
)
def test_phrases_find_earlier_texts(text: str) -> None:
    """The phrases find earlier texts that they were made for."""
    assert found_in(text)
