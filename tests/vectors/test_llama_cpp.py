"""The parsers with the expectations of llama.cpp's tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from adapter.generation.model_format import UNKNOWN
from adapter.generation.read_back import Message, Turn
from adapter.tools import ModelFormat
from tests.vectors.known_differences import LLAMA_CPP, check
from tests.vectors.llama_cpp import Case, read_cases
from tests.vectors.set_up import FOLDER
from tests.vectors.templates import control_texts, format_of, load

TEMPLATES = FOLDER / "llama.cpp" / "models" / "templates"


@cache
def cases() -> tuple[list[Case], list[str]]:
    return read_cases()


def applies(case: Case) -> bool:
    """Return False for what the gateway does not offer, or does in another way: to continue reasoning, to leave it in
    the content, and calls in the model's own format if the template does not show tools, or the format is not known.
    """
    found = format_of(TEMPLATES / case.template)
    if UNKNOWN in (found.tools, found.reasoning) or (case.tools and not found.template.supports_tools):
        return False
    unparsed = case.parameters.get("reasoning_format", "COMMON_REASONING_FORMAT_NONE") == "COMMON_REASONING_FORMAT_NONE"
    return "continue_final_message" not in case.parameters and not (unparsed and read(case).reasoning)


def prompt_of(case: Case, path: Path) -> str:
    template = load(path)
    thinking = case.parameters.get("enable_thinking", True)
    variables: dict[str, Any] = {
        name: thinking for name in ("enable_thinking", "thinking") if name in template.variables
    }
    return template.render(case.messages, tools=case.tools or None, variables=variables)


def read(case: Case, model_format: ModelFormat | None = None) -> Message:
    """Read the text of a case, in the format found for its template unless another is given."""
    path = TEMPLATES / case.template
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in case.tools}
    turn = Turn(prompt_of(case, path), case.text, end="", prompt="", control=control_texts(path))
    return turn.read(model_format or format_of(path).format, schemas, cut=bool(case.parameters.get("is_partial")))


def agrees(case: Case, found: Message) -> bool:
    """Return True if the message is the expected one; of arguments that are cut off, the start counts."""
    if (found.content, found.reasoning) != (case.expected.content, case.expected.reasoning):
        return False
    pairs = list(zip(found.calls, case.expected.calls, strict=False))
    if len(pairs) != len(case.expected.calls) or len(found.calls) != len(pairs):
        return False
    return all(one == two or (one[0] == two[0] and _is_start(one[1], two[1])) for one, two in pairs)


def _is_start(one: object, two: object) -> bool:
    """Return True if one of two incomplete texts of arguments, whose spaces do not matter, starts with the other."""
    if not isinstance(one, str) and not isinstance(two, str):
        return False
    texts = [str(each).replace(" ", "") for each in (one, two)]
    return texts[0].startswith(texts[1]) or texts[1].startswith(texts[0])


def test_cases_are_read() -> None:
    """Nearly all cases of the file can be read."""
    found, unreadable = cases()
    print(f"{len(found)} cases; not read: {unreadable}")
    assert len(found) > 400
    assert len(unreadable) < 5


def test_expectations() -> None:
    """At least 95 % of the expectations that apply are met, and the others are listed."""
    applicable = [case for case in cases()[0] if applies(case)]
    failed = {case.id: case for case in applicable if not agrees(case, read(case))}
    for name, case in failed.items():
        print(f"{name}\n  text     {case.text!r}\n  expected {case.expected}\n  found    {read(case)}")
    met = len(applicable) - len(failed)
    print(f"{met} of {len(applicable)} expectations of llama.cpp that apply are met")
    assert met >= 0.95 * len(applicable)
    check(failed, LLAMA_CPP)
