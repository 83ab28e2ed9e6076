"""Formats whose arguments are written one by one between tags. What models really write, and what is expected of it,
follows the parser tests of llama.cpp and vLLM."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.tools import FORMATS, ModelFormat, UnsupportedSchema
from adapter.tools.formats.tag_families import TAG_FORMATS
from tests.adapter.tools.tag_examples import TAG_EXAMPLES
from tests.adapter.tools.test_parsers import Message, message, only, parts_of

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "on": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "options": {"type": "object", "properties": {"level": {"type": "integer"}}},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"max": {"type": "integer"}}}]},
        "label": {"type": ["string", "null"]},
    },
}
FUNCTION = {"f": SCHEMA, "g": None}
DSML, NS = "\uff5cDSML\uff5c", "]<]minimax[>["
QWEN, SEED = "<tool_call>\n<function=f>\n{}</function>\n</tool_call>", "<seed:tool_call>\n<function=f>\n{}</function>\n"
GLM, M3 = "<tool_call>f\n{}</tool_call>", f'{NS}<tool_call>\n{NS}<invoke name="f">{{}}{NS}</invoke>\n{NS}</tool_call>'
DEEPSEEK = f'<{DSML}function_calls>\n<{DSML}invoke name="f">\n{{}}</{DSML}invoke>\n</{DSML}function_calls>'
M2 = '<minimax:tool_call>\n<invoke name="f">\n{}</invoke>\n</minimax:tool_call>'
GEMMA, MINICPM = "<|tool_call>call:f{{{}}}<tool_call|>", '<function name="f">{}</function>'


def read(name: str, text: str) -> Message:
    parser = only(name).parser(FUNCTION)
    assert parser is not None
    return message(parser.decode(text) + parser.flush())


def arguments_of(name: str, text: str) -> Any:
    ((function, arguments),) = read(name, text).calls
    assert function == "f"
    return json.loads(arguments)


ARGUMENTS: list[tuple[str, str, str, dict[str, Any]]] = [
    # A closing tag is missing.
    (
        "qwen3_coder",
        QWEN,
        "<parameter=text>\nx\n<parameter=label>\ny\n</parameter>\n",
        {"text": "x", "label": "y"},
    ),
    ("qwen3_coder", QWEN, "<parameter=text>\nx\n", {"text": "x"}),
    ("qwen3_coder", QWEN, "<parameter=count>\n7\n<parameter=text>\n\n</parameter>\n", {"count": 7, "text": ""}),
    ("seed_oss", SEED, "<parameter=text>x\n<parameter=label>y</parameter>\n", {"text": "x", "label": "y"}),
    ("seed_oss", SEED + "</seed:tool_call>", "<parameter=text>x\n", {"text": "x"}),
    (
        "glm",
        GLM,
        "<arg_key>text</arg_key>\n<arg_value>x\n<arg_key>count</arg_key>\n<arg_value>1</arg_value>\n",
        {"text": "x", "count": 1},
    ),
    (
        "deepseek_v32",
        DEEPSEEK,
        f'<{DSML}parameter name="text" string="true">x<{DSML}parameter name="count" string="false">1</{DSML}parameter>',
        {"text": "x", "count": 1},
    ),
    ("minimax_m3", M3, f"{NS}<text>x", {"text": "x"}),
    ("minimax_m3", M3, f"{NS}<count>4", {"count": 4}),
    # Text that looks like tags.
    ("qwen3_coder", QWEN, "<parameter=text>\na <parameter=b> </p>\n</parameter>\n", {"text": "a <parameter=b> </p>"}),
    (
        "glm",
        GLM,
        "<arg_key>text</arg_key><arg_value></think> and <tool_call> here</arg_value>",
        {"text": "</think> and <tool_call> here"},
    ),
    ("minicpm5", MINICPM, '<param name="text"><![CDATA[<b> </param>]]></param>', {"text": "<b> </param>"}),
    (
        "minicpm5",
        MINICPM,
        '<param name="count"><![CDATA[3]]></param><param name="on">true</param>',
        {"count": 3, "on": True},
    ),
    ("minimax_m3", M3, f"{NS}<text>a {NS}<b>c{NS}</b>{NS}</text>", {"text": f"a {NS}<b>c{NS}</b>"}),
    # White space in text.
    ("qwen3_coder", QWEN, "<parameter=text>\n\n a\n\n</parameter>\n", {"text": "\n a\n"}),
    ("seed_oss", SEED, "<parameter=text>def f():\n    pass\n</parameter>\n", {"text": "def f():\n    pass\n"}),
    (
        "mimo",
        "<tool_call><function=f>{}</function></tool_call>",
        "<parameter=text>\na\n</parameter>",
        {"text": "\na\n"},
    ),
    # Python literals, and types that the schema decides.
    ("seed_oss", SEED, "<parameter=tags>{'a', 'b'}</parameter>", {"tags": ["a", "b"]}),
    ("seed_oss", SEED, "<parameter=tags>('a', \"it's\",)</parameter>", {"tags": ["a", "it's"]}),
    ("seed_oss", SEED, "<parameter=options>{'level': 07, 'x': None}</parameter>", {"options": {"level": 7, "x": None}}),
    ("qwen3_coder", QWEN, "<parameter=count>\n07\n</parameter>\n", {"count": 7}),
    ("qwen3_coder", QWEN, "<parameter=text>\n07\n</parameter>\n", {"text": "07"}),
    (
        "qwen3_coder",
        QWEN,
        "<parameter=on>\nTrue\n</parameter>\n<parameter=label>\nNone\n</parameter>\n",
        {"on": True, "label": None},
    ),
    ("qwen3_coder", QWEN, '<parameter=text>\n"quoted"\n</parameter>\n', {"text": '"quoted"'}),
    (
        "qwen3_coder",
        QWEN,
        "<parameter=count>\n3.0\n</parameter>\n<parameter=ratio>\n2\n</parameter>\n",
        {"count": 3, "ratio": 2},
    ),
    ("minimax_m2", M2, '<parameter name="options">{"level": 2}</parameter>\n', {"options": {"level": 2}}),
    ("minimax_m2", M2, "<parameter name='text'>5</parameter>\n", {"text": "5"}),
    # The tag says which type it is, unless the schema says otherwise.
    ("deepseek_v32", DEEPSEEK, f'<{DSML}parameter name="new" string="true">5</{DSML}parameter>\n', {"new": "5"}),
    ("deepseek_v32", DEEPSEEK, f'<{DSML}parameter name="new" string="false">5</{DSML}parameter>\n', {"new": 5}),
    ("deepseek_v32", DEEPSEEK, f'<{DSML}parameter name="text">5</{DSML}parameter>\n', {"text": "5"}),
    ("deepseek_v32", DEEPSEEK, f'<{DSML}parameter name="count" string="true">5</{DSML}parameter>\n', {"count": 5}),
    (
        "deepseek_v32",
        DEEPSEEK,
        f'<{DSML}parameter name="text" string="false">null</{DSML}parameter>\n',
        {"text": "null"},
    ),
    ("deepseek_v32", DEEPSEEK, f'<{DSML}parameter name="text" string="false">"a"</{DSML}parameter>\n', {"text": "a"}),
    # Elements within elements.
    ("minimax_m3", M3, f"{NS}<tags>{NS}<item>1{NS}</item>{NS}<item>b{NS}</item>{NS}</tags>", {"tags": ["1", "b"]}),
    ("minimax_m3", M3, f"{NS}<limit>{NS}<max>10{NS}</max>{NS}</limit>", {"limit": {"max": 10}}),
    ("minimax_m3", M3, f"{NS}<limit>5{NS}</limit>", {"limit": 5}),
    ("minimax_m3", M3, f"{NS}<tags>{NS}</tags>{NS}<options>{NS}</options>", {"tags": [], "options": {}}),
    ("minimax_m3", M3, f'{NS}<options>{{"level": 1}}{NS}</options>', {"options": {"level": 1}}),
    ("minimax_m3", M3, f"{NS}<new>{NS}<t>x{NS}</t>{NS}<t>y{NS}</t>{NS}</new>", {"new": {"t": ["x", "y"]}}),
    (
        "minimax_m3",
        M3,
        f"{NS}<options>a {NS}<level>1{NS}</level>{NS}</options>",
        {"options": {"level": 1, "$text": "a "}},
    ),
    # Gemma's notation.
    (
        "gemma4",
        GEMMA,
        'text:<|"|>a, {b}: [c]<|"|>,count:-7,ratio:1.5e10',
        {"text": "a, {b}: [c]", "count": -7, "ratio": 1.5e10},
    ),
    (
        "gemma4",
        GEMMA,
        'on:false,tags:[<|"|>a<|"|>, <|"|>b<|"|>],label:null',
        {"on": False, "tags": ["a", "b"], "label": None},
    ),
    (
        "gemma4",
        GEMMA,
        'options:{level:2,x:{<|"|>y z<|"|>:[]}},tags:[]',
        {"options": {"level": 2, "x": {"y z": []}}, "tags": []},
    ),
    ("gemma4", GEMMA, 'options:{"level": 2},text:plain', {"options": {"level": 2}, "text": "plain"}),
    ("gemma4", "<|tool_call>:f{{{}<tool_call|>", "count:1", {"count": 1}),
    (
        "functiongemma",
        "<start_function_call>call:f{{{}}}<end_function_call>",
        "text:<escape>5<escape>,count:<escape>42<escape>",
        {"text": "5", "count": 42},
    ),
]


@pytest.mark.parametrize(("name", "call", "arguments", "expected"), ARGUMENTS)
def test_arguments(name: str, call: str, arguments: str, expected: dict[str, Any]) -> None:
    """Arguments are read as the models of each family write them."""
    assert arguments_of(name, call.format(arguments)) == expected


CALLS = [
    # Outer tags may be missing.
    ("qwen3_coder", "Now.\n<function=f>\n</function>\n</tool_call>", Message("Now.", calls=[("f", "{}")])),
    ("minimax_m2", '<invoke name="f">\n</invoke>', Message(calls=[("f", "{}")])),
    ("deepseek_v32", f'<{DSML}invoke name="f">\n\n</{DSML}invoke>', Message(calls=[("f", "{}")])),
    ("minimax_m2", 'Use <invoke name="x">.', Message('Use <invoke name="x">.')),
    ("qwen3_coder", "<tool_call>\n<function=f>\n</tool_call>", Message(calls=[("f", "{}")])),
    # Calls in sequence.
    ("glm47", "<tool_call>f</tool_call><tool_call>g</tool_call>", Message(calls=[("f", "{}"), ("g", "{}")])),
    (
        "dots",
        '<dots_function_call><invoke name="f"></invoke>\n<invoke name="g"></invoke></dots_function_call>x',
        Message("x", calls=[("f", "{}"), ("g", "{}")]),
    ),
    (
        "step3",
        (
            "<\uff5ctool_calls_begin\uff5c><\uff5ctool_call_begin\uff5c>"
            '<steptml:invoke name="f"></steptml:invoke><\uff5ctool_call_end\uff5c><\uff5ctool_sep\uff5c>'
            '<\uff5ctool_call_begin\uff5c><steptml:invoke name="g"></steptml:invoke><\uff5ctool_call_end\uff5c>'
            "<\uff5ctool_calls_end\uff5c>"
        ),
        Message(calls=[("f", "{}"), ("g", "{}")]),
    ),
    # JSON instead of tags.
    (
        "dots",
        '<dots_function_call>{"name": "f", "arguments": {"count": 1}}</dots_function_call>',
        Message(calls=[("f", '{"count": 1}')]),
    ),
    # What is not a call stays text.
    ("glm", "The <tool_call> mark\n", Message("The <tool_call> mark\n")),
    ("gemma4", "<|tool_call>call:f no brace<tool_call|>", Message("<|tool_call>call:f no brace<tool_call|>")),
    # A call that ends early keeps its arguments.
    ("glm", "<tool_call>f<arg_key>text</arg_key><arg_value>ab", Message(calls=[("f", '{"text": "ab')])),
    ("gemma4", '<|tool_call>call:f{text:<|"|>a<|"|>,tags:[1', Message(calls=[("f", '{"text": "a", "tags": [')])),
]


@pytest.mark.parametrize(("name", "text", "expected"), CALLS)
def test_calls(name: str, text: str, expected: Message) -> None:
    """Calls are found without their outer tags, in sequence and in JSON, and nothing else is a call."""
    assert read(name, text) == expected


def test_values_that_are_nested_too_deeply() -> None:
    """Values can be nested to a limit."""
    ((name, arguments),) = read("gemma4", "<|tool_call>call:f{a:" + "[" * 100).calls
    assert (name, arguments) == ("f", '{"a": ' + "[" * 31)
    text = M3.format(f"{NS}<options>" + f"{NS}<a>" * 40 + f"{NS}</a>" * 40 + f"{NS}</options>")
    ((name, arguments),) = read("minimax_m3", text).calls
    assert (name, arguments) == ("f", '{"options": ')


PIECES = {
    name: re.findall(r"(?:\]<\]minimax\[>\[)?<[^<>]*>|[^<]+|<", example.call) + list(FORMATS[name].visible_marks)
    for name, example in TAG_EXAMPLES.items()
}
OTHERS = [
    '{"name": "get_time"}',
    '"',
    "\n",
    "[1, 2]",
    "{",
    "}",
    "<",
    "</",
    "zip",
    "near",
    "07",
    "{'a'}",
    "]]>",
    ":",
    ",",
]


@st.composite
def mangled(draw: st.DrawFn) -> tuple[ModelFormat, str]:
    """Draw a format, and one of its calls with a part of it replaced by other pieces."""
    name = draw(st.sampled_from(sorted(TAG_EXAMPLES)))
    call = TAG_EXAMPLES[name].call
    start, end = sorted((draw(st.integers(0, len(call))), draw(st.integers(0, len(call)))))
    between = "".join(draw(st.lists(st.sampled_from(PIECES[name] + OTHERS), max_size=6)))
    return only(name), call[:start] + between + call[end:] + draw(st.sampled_from(["", call, "\n"]))


@given(mangled(), st.data())
@settings(max_examples=400, deadline=None)
def test_any_pieces_give_the_same(drawn: tuple[ModelFormat, str], data: st.DataObject) -> None:
    """A damaged call in any pieces gives the same message as in one piece, and nothing of its text is lost."""
    kind, text = drawn
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    whole = message(parts_of(kind, [text]))
    assert message(parts_of(kind, text)) == whole
    parts = parts_of(kind, [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])])
    assert message(parts) == whole
    assert sum(part.size for part in parts) == len(text)
    assert whole.calls or whole.content == text


def test_a_call_that_breaks_off_at_the_end_of_a_piece() -> None:
    """What follows a call that became invalid is content, although it has not arrived by then."""
    text = '<|tool_call>call:f{text:"\\q",count:1}'
    for pieces in ([text], text):
        assert message(parts_of(only("gemma4"), pieces)).content == text[text.index('"') :]


@pytest.mark.parametrize("name", [kind.name for kind in TAG_FORMATS])
def test_names_that_would_be_tags(name: str) -> None:
    """An argument with a tag in its name cannot be forced, as it would not be read back."""
    (tag,) = (kind.syntax.key[1].strip() for kind in TAG_FORMATS if kind.name == name)
    tools = {"f": {"properties": {f"{tag}x": {"type": "integer"}}}}
    with pytest.raises(UnsupportedSchema, match="the name contains a tag"):
        only(name).call_grammar(tools, False, {})


def test_values_that_contain_tags() -> None:
    """A listed value with a tag in it cannot be forced, as it would not be read back."""
    tools = {"f": {"properties": {"a": {"enum": ["x", "y</parameter>"]}}}}
    with pytest.raises(UnsupportedSchema, match="a value contains a tag"):
        only("qwen3_coder").call_grammar(tools, False, {})
