"""Conversion of arguments that are not JSON, and selection of formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.tools import FORMATS, parse_format_name, select_format
from adapter.tools.reading.python_literal import python_to_json
from adapter.tools.reading.typed_values import allowed_types, text_to_json
from tests.adapter.tools import json_examples
from tests.adapter.tools.tag_examples import TAG_EXAMPLES

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(VALUES)
def test_python_values(value: Any) -> None:
    """The output of Python's repr is converted to the same value in JSON."""
    assert json.loads(python_to_json(repr(value))) == value


@given(VALUES)
def test_json_among_python_values(value: Any) -> None:
    """JSON is unchanged, including escapes that Python does not have."""
    assert json.loads(python_to_json(json.dumps(value).replace("/", "\\/"))) == value


@given(st.text())
def test_invalid_python_values(text: str) -> None:
    """Any text is converted to valid JSON."""
    written = python_to_json(text)
    json.loads(written)
    written.encode()


@given(VALUES)
def test_values_by_the_schema(value: Any) -> None:
    """JSON is converted to its value if the schema allows its type or does not restrict it."""
    kind = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    name = kind.get(type(value), "null")
    for schema in (None, {}, {"type": [name, "null"]}, {"anyOf": [{"type": "null"}, {"type": name}]}):
        assert json.loads(text_to_json(json.dumps(value), schema)) == value


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
def test_ambiguous_values(text: str, schema: Any, value: Any) -> None:
    """Ambiguous text is a string if only strings are allowed, else its JSON value, else a string."""
    assert json.loads(text_to_json(text, schema)) == value


@pytest.mark.parametrize(
    ("text", "kind", "written"), [("3.0", "integer", "3"), ("3.0", "number", "3.0"), ("+07", "number", "7")]
)
def test_numbers(text: str, kind: str, written: str) -> None:
    """Numbers are written as the schema and JSON want them."""
    assert text_to_json(text, {"type": kind}) == written


def test_types_of_schemas() -> None:
    """A schema with an unrestricted part has no types."""
    assert allowed_types({"const": 1}) == {"integer"}
    assert allowed_types({"oneOf": [{"type": "string"}, {}]}) == frozenset()
    assert allowed_types(True) == frozenset()


TEMPLATES = {
    **json_examples.TEMPLATES,
    "hermes": "{{ '<tool_call>' }} </tool_call>",
    "llama3_json": """<|start_header_id|> {"name": function name, "parameters": dictionary}""",
    "pythonic": "<|tool_call_start|>[",
    "kimi_k3": "'<|open|>' '<|sep|>' open_tag('tools') open_tag('think')",
    "olmo3": "'<function_calls>' +",
    "mistral": "[AVAILABLE_TOOLS] [TOOL_CALLS]",
    "mistral_args": "[TOOL_CALLS] + name + [ARGS]",
    "deepseek": FORMATS["deepseek"].visible_marks[0],
    "deepseek_v3": FORMATS["deepseek"].visible_marks[0] + "```json",
    **{name: example.template for name, example in TAG_EXAMPLES.items()},
    "harmony": "<|start|>system<|message|> <|channel|>",
}


@pytest.mark.parametrize("name", FORMATS)
def test_detection_of_the_format(name: str) -> None:
    """The format of calls is detected by marks in the chat template, and can be set explicitly."""
    assert select_format(TEMPLATES[name]).tool_format is FORMATS[name]
    assert select_format("<tool_call>", name).tool_format is FORMATS[name]
    assert select_format(TEMPLATES[name], "none").tool_format is None


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("'List of tools: <|tool_list_start|>['", "pythonic"),
        ('"List of tools: ["', "pythonic"),
        ("<|start_header_id|> Respond in the format [func_name1(params_name1=...)]", "pythonic"),
        ("""<|header_start|> {"name": function name, "parameters": dictionary}""", "llama3_json"),
        ("<|tool_call|><|/tool_call|>", "phi4_mini"),
    ],
)
def test_other_templates(template: str, name: str) -> None:
    """Several templates lead to the same format."""
    assert select_format(template).tool_format is FORMATS[name]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("'<think>\\n' '<response>\\n'", "think_response"),
        ("between <think></think> and <response></response>", "think_response"),
        ("'<think>' '\\n<response>'", "think"),
        ("split('<answer>') <think>", "think_answer"),
        ("<|extra_0|><think>", "think_answer"),
        ("<|START_THINKING|>", "cohere"),
        ("Here is my response:", "granite"),
        ("'<|open|>' '<|sep|>' open_tag('think')", "kimi_k3"),
        ("\u25c1/think\u25b7", "kimi"),
        ("HYTK = ':opensource' '<think{}>'.format(HYTK)", "hy3"),
        ("'<|channel>thought\\n' + text + '\\n<channel|>'", "gemma4"),
        ("think_end_token = '</mm:think>'", "minimax"),
        ("<|inner_prefix|>", "apertus"),
    ],
)
def test_templates_of_reasoning(template: str, name: str) -> None:
    """Tags of reasoning are detected by what a template has."""
    tags = select_format(template).tags
    assert tags is not None
    assert tags.name == name


def test_a_template_without_marks() -> None:
    """A template without marks gets the hermes format without reasoning."""
    kind = select_format("{{ messages }}")
    assert kind.tool_format is FORMATS["hermes"]
    assert kind.tags is None


def test_detection_of_reasoning() -> None:
    """Tags of reasoning are detected in the template unless the format marks reasoning, and can be set explicitly."""
    tags = select_format("content.split('</think>')").tags
    assert tags is not None
    assert (tags.name, select_format("", reasoning="seed").visible_marks[-2:]) == (
        "think",
        ("<seed:think>", "</seed:think>"),
    )
    assert select_format("<think>", reasoning="none").tags is None
    assert select_format("<|channel|> <|message|> <think>").tags is None


@pytest.mark.parametrize("names", [("Hermes", None), (None, "thinking")])
def test_unknown_names(names: tuple[str | None, str | None]) -> None:
    """An unknown name raises an error that lists the known ones."""
    with pytest.raises(ValueError, match="none"):
        select_format("", *names)


def test_settings_of_formats() -> None:
    """A setting has a format of calls, and optionally tags of reasoning."""
    assert parse_format_name("hermes") == ("hermes", None)
    assert parse_format_name("none/think") == ("none", "think")
    for wrong in ("", "hermes/", "/think", "hermes/think/"):
        with pytest.raises(ValueError, match="expected one of"):
            parse_format_name(wrong)
