"""Arguments that are not written as JSON, and how the parsers for a model are chosen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.tools import FORMATS, choose, named
from adapter.tools.reading.python_literal import python_as_json
from adapter.tools.reading.typed_values import as_json, types

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(VALUES)
def test_python_values(value: Any) -> None:
    """What Python's repr writes is that value in JSON."""
    assert json.loads(python_as_json(repr(value))) == value


@given(VALUES)
def test_json_among_python_values(value: Any) -> None:
    """JSON stays what it is, also with escapes that Python does not have."""
    assert json.loads(python_as_json(json.dumps(value).replace("/", "\\/"))) == value


@given(st.text())
def test_what_is_no_python_value(text: str) -> None:
    """Anything at all gives JSON that can be sent."""
    written = python_as_json(text)
    json.loads(written)
    written.encode()


@given(VALUES)
def test_values_by_the_schema(value: Any) -> None:
    """A value in JSON is that value wherever its type is allowed, or nothing is known of it."""
    kind = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    name = kind.get(type(value), "null")
    for schema in (None, {}, {"type": [name, "null"]}, {"anyOf": [{"type": "null"}, {"type": name}]}):
        assert json.loads(as_json(json.dumps(value), schema)) == value


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": ["string", "null"]}, "5"),
        ("None", {"type": ["string", "null"]}, None),
        ("red", {"enum": ["red", 1]}, "red"),
        ("1", {"enum": ["red", 1]}, 1),
        ("True", {"type": "boolean"}, True),
        (" [1] ", None, [1]),
        ("red, green", {"type": "array"}, "red, green"),
        ("7", {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/N"}]}, 7),
        ("[" * 5000, None, "[" * 5000),
    ],
)
def test_values_that_may_be_several_things(text: str, schema: Any, value: Any) -> None:
    """A string where only a string is allowed, else what it is in JSON, else a string."""
    assert json.loads(as_json(text, schema)) == value


def test_types_of_schemas() -> None:
    """None where a part does not say."""
    assert types({"const": 1}) == {"integer"}
    assert types({"oneOf": [{"type": "string"}, {}]}) == frozenset()
    assert types(True) == frozenset()


TEMPLATES = {
    "hermes": "{{ '<tool_call>' }} </tool_call>",
    "llama3_json": """<|start_header_id|> {"name": function name, "parameters": dictionary}""",
    "pythonic": "<|tool_call_start|>[",
    "mistral": "[AVAILABLE_TOOLS] [TOOL_CALLS]",
    "mistral_args": "[TOOL_CALLS] + name + [ARGS]",
    "deepseek": FORMATS["deepseek"].visible[0],
    "deepseek_v3": FORMATS["deepseek"].visible[0] + "```json",
    "glm": "<tool_call> <arg_key> <arg_value>",
    "qwen3_coder": "<tool_call> <function=name> <parameter=x>",
    "harmony": "<|start|>system<|message|> <|channel|>",
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_template_tells_the_format(name: str) -> None:
    """By the marks in its source; the operator may say otherwise."""
    assert type(choose(TEMPLATES[name]).calls) is FORMATS[name]
    assert type(choose("<tool_call>", name).calls) is FORMATS[name]
    assert choose(TEMPLATES[name], "none").calls is None


def test_a_template_without_marks() -> None:
    """Tools are written in the hermes format, and nothing is reasoning."""
    kind = choose("{{ messages }}")
    assert type(kind.calls) is FORMATS["hermes"]
    assert kind.tags is None


def test_the_template_tells_the_reasoning() -> None:
    """By its tags, but not where the format marks reasoning itself; the operator may say otherwise."""
    tags = choose("content.split('</think>')").tags
    assert tags is not None
    assert (tags.name, choose("", reasoning="seed").visible[-2:]) == ("think", ("<seed:think>", "</seed:think>"))
    assert choose("<think>", reasoning="none").tags is None
    assert choose("<|channel|> <|message|> <think>").tags is None


@pytest.mark.parametrize("names", [("Hermes", None), (None, "thinking")])
def test_unknown_names(names: tuple[str | None, str | None]) -> None:
    """They are refused with those that there are."""
    with pytest.raises(ValueError, match="none"):
        choose("", *names)


def test_what_an_operator_says() -> None:
    """Calls, or calls and reasoning."""
    assert named("hermes") == ("hermes", None)
    assert named("none/think") == ("none", "think")
    for wrong in ("", "hermes/", "/think", "hermes/think/"):
        with pytest.raises(ValueError, match="expected one of"):
            named(wrong)
