"""Parsers of reasoning and tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.tools import FORMATS, REASONING, ModelFormat, select_format
from adapter.tools.formats.json_families import STYLES
from adapter.tools.reading.parts import Content, Part, Reasoning, ToolArguments, ToolCallBegin
from tests.adapter.tools import json_examples
from tests.adapter.tools.tag_examples import TAG_EXAMPLES

CALLS, CALLS_END, CALL, CALL_END, SEP = FORMATS["deepseek"].visible_marks
TOOLS = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "metric": {"type": "boolean"},
            "near": {"type": "array"},
            "zip": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    },
    "get_time": None,
}


class Message(msgspec.Struct):
    """Message of an answer. `calls` has names and arguments."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = []


def message(parts: Iterable[Part]) -> Message:
    whole = Message()
    for part in parts:
        match part:
            case Content(text):
                whole.content += text
            case Reasoning(text):
                whole.reasoning += text
            case ToolCallBegin(index, name):
                assert index == len(whole.calls)
                whole.calls.append((name, ""))
            case ToolArguments(index, text):
                assert index == len(whole.calls) - 1
                whole.calls[index] = (whole.calls[index][0], whole.calls[index][1] + text)
    return whole


def parts_of(kind: ModelFormat, pieces: Iterable[str], opened: bool = False, cut: bool = False) -> list[Part]:
    parser = kind.parser(TOOLS, opened)
    assert parser is not None
    parts = [part for piece in pieces for part in parser.decode(piece)]
    return parts + parser.flush(cut)


def read(kind: ModelFormat, text: str, opened: bool = False, cut: bool = False) -> Message:
    """Parse a text that arrives one character at a time."""
    return message(parts_of(kind, text, opened, cut))


def only(name: str, reasoning: str = "none") -> ModelFormat:
    return select_format("", name, reasoning)


PARIS = ("get_weather", '{"city": "Paris"}')
TIME = ("get_time", "{}")

WRITTEN: list[tuple[str, str, Message]] = [
    ("hermes", "Just text, 1 < 2.", Message("Just text, 1 < 2.")),
    (
        "hermes",
        (
            'I look.\n\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "get_time"}\n</tool_call>'
        ),
        Message("I look.", calls=[PARIS, TIME]),
    ),
    (
        "hermes",
        '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>',
        Message(calls=[PARIS]),
    ),
    (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
        Message(calls=[PARIS]),
    ),
    (
        "hermes",
        '<tool_call>{"id": 7, "name": "get_weather", "arguments": {"city": "Paris"}, "x": [1]} and',
        Message("and", calls=[PARIS]),
    ),
    (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "</tool_call>}\\""}}</tool_call>',
        Message(calls=[("get_weather", '{"city": "</tool_call>}\\""}')]),
    ),
    (
        "hermes",
        'Now <tool_call>{"name": "get_time"}</tool_call> and\n<tool_call>{"name": "get_time"}</tool_call>\n then.\n',
        Message("Now and\n then.\n", calls=[TIME, TIME]),
    ),
    (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"</tool_call><tool_call>{"name": "get_time"}',
        Message(calls=[("get_weather", '{"city": "Paris"'), TIME]),
    ),
    ("hermes", "The <tool_call> is a mark, <b>", Message("The <tool_call> is a mark, <b>")),
    ("hermes", '<tool_call>{"name": "get_wea', Message('<tool_call>{"name": "get_wea')),
    ("hermes", '<tool_call>{"name": 3, "arguments": {}}', Message('<tool_call>{"name": 3, "arguments": {}}')),
    (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Pa',
        Message(calls=[("get_weather", '{"city": "Pa')]),
    ),
    ("llama3_json", '{"name": "get_weather", "parameters": {"city": "Paris"}}', Message(calls=[PARIS])),
    (
        "llama3_json",
        (
            '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}; '
            '{"name": "get_time", "parameters": {}}'
        ),
        Message(calls=[PARIS, TIME]),
    ),
    ("llama3_json", '{"name": "Ada", "parameters": {}}', Message('{"name": "Ada", "parameters": {}}')),
    (
        "llama3_json",
        'I look.\n{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "get_time"}',
        Message("I look.", calls=[PARIS, TIME]),
    ),
    *[
        ("llama3_json", text, Message(text))
        for text in (
            'I look. {"name": "get_news", "parameters": {}}',
            'I look. {"name": "get_time", "parameters": {}',
            'I look. {"name": "get_time", "parameters": {}]}',
            'The {"type": "object", "name": "get_time"}',
            'As in [ {"name": "get_time"} ].',
            '{"first":\n {"name": "get_time"}}',
            'Like {"name": "get_time"}, for example.',
            'So:\n```\n{"name": "get_time"}\n```',
            'I see f{"name": "get_time"}',
        )
    ],
    ("llama3_json", ' {"answer": 42} ', Message(' {"answer": 42} ')),
    ("llama3_json", "<|python_tag|>print(1)", Message("<|python_tag|>print(1)")),
    (
        "pythonic",
        "[get_weather(city='Par\\'is', days=3, metric=True, near=[('a', None),], zip=\"7\\/\"), get_time()]",
        Message(
            calls=[
                ("get_weather", '{"city": "Par\'is", "days": 3, "metric": true, "near": [["a", null]], "zip": "7\\/"}'),
                TIME,
            ]
        ),
    ),
    (
        "pythonic",
        'Hi.<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>Done.',
        Message("Hi.Done.", calls=[PARIS]),
    ),
    ("pythonic", "<|python_start|>[get_time()]<|python_end|>", Message(calls=[TIME])),
    ("pythonic", "[get_time(), ", Message(calls=[TIME])),
    (
        "olmo3",
        "I look.\n<function_calls>get_weather(city='Paris')\nget_time()\n</function_calls>",
        Message("I look.", calls=[PARIS, TIME]),
    ),
    ("olmo3", "<function_calls>get_weather(city='Par", Message(calls=[("get_weather", "")])),
    (
        "kimi_k3",
        (
            'On it. <|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="a&quot;b"'
            ' type="string"<|sep|>1 < 2\n<|close|>argument<|sep|><|open|>argument key="days" type="number"<|sep|>3'
            '<|close|>argument<|sep|><|close|>call<|sep|><|open|>call tool="get_time" index="2"<|sep|>'
            "<|close|>call<|sep|><|close|>tools<|sep|>"
        ),
        Message("On it.", calls=[("get_weather", '{"a\\"b": "1 < 2\\n", "days": 3}'), TIME]),
    ),
    (
        "kimi_k3",
        (
            '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>json type="object"<|sep|>'
            '{"city": "Paris"}<|close|>json<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
        ),
        Message(calls=[PARIS]),
    ),
    ("kimi_k3", "<|open|>tools<|sep|> are marks", Message("<|open|>tools<|sep|> are marks")),
    ("pythonic", "[1, 2] and [get_time()]", Message("[1, 2] and [get_time()]")),
    ("pythonic", "[see_note(1)]", Message("[see_note(1)]")),
    ("pythonic", "[get_weather('Paris')]", Message("'Paris')]", calls=[("get_weather", "")])),
    ("pythonic", "[get_weather(city='Paris', days=1", Message(calls=[("get_weather", '{"city": "Paris"')])),
    ("pythonic", "[get_weather(city=a b)]", Message(calls=[("get_weather", '{"city": "a b"}')])),
    (
        "mistral",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time", "arguments": {}}]',
        Message(calls=[PARIS, TIME]),
    ),
    (
        "mistral",
        'Hm. [TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_time[CALL_ID]x7[ARGS]{}',
        Message("Hm.", calls=[PARIS, TIME]),
    ),
    ("mistral", '[TOOL_CALLS]get_weather{"city": "Paris"}', Message(calls=[PARIS])),
    ("nemotron", "No need. <TOOLCALL>[]</TOOLCALL>", Message("No need.")),
    (
        "kimi_k2",
        "No need.<|tool_calls_section_begin|><|tool_calls_section_end|>",
        Message("No need."),
    ),
    (
        "phi4_mini",
        '{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time"}',
        Message(calls=[PARIS, TIME]),
    ),
    ("phi4_mini", '[{"name": "Ada"}]', Message('[{"name": "Ada"}]')),
    ("functionary_v3_2", "all\nI look.\n>>>get_time\n{}>>>all\nHi", Message("I look.Hi", calls=[TIME])),
    ("functionary_v3_2", "allow", Message("allow")),
    ("mistral", "[TOOL_CALLS] are marks", Message("[TOOL_CALLS] are marks")),
    (
        "deepseek",
        f'Now:\n{CALLS}{CALL}get_weather{SEP}{{"city": "Paris"}}{CALL_END}{CALL}get_time{SEP}{{}}{CALL_END}{CALLS_END}',
        Message("Now:", calls=[PARIS, TIME]),
    ),
    (
        "deepseek_v3",
        (
            f'{CALLS}{CALL}function{SEP}get_weather\n```json\n{{"city": "Paris"}}\n```{CALL_END}\n'
            f"{CALL}function{SEP}get_time\n```json\n{{}}\n```{CALL_END}{CALLS_END}"
        ),
        Message(calls=[PARIS, TIME]),
    ),
    ("deepseek", f"{CALLS}{CALL}get_time{SEP}none", Message(f"{CALLS}{CALL}get_time{SEP}none")),
    (
        "glm",
        (
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>\n"
            "<tool_call>get_time\n</tool_call>"
        ),
        Message(calls=[PARIS, TIME]),
    ),
    (
        "glm",
        (
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>12</arg_value>\n<arg_key>days</arg_key>\n"
            "<arg_value>3</arg_value>\n<arg_key>zip</arg_key>\n<arg_value>12</arg_value>\n<arg_key>new</arg_key>\n"
            "<arg_value>[1]</arg_value>\n</tool_call>"
        ),
        Message(calls=[("get_weather", '{"city": "12", "days": 3, "zip": "12", "new": [1]}')]),
    ),
    (
        "glm",
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Par",
        Message(calls=[("get_weather", '{"city": "Par')]),
    ),
    (
        "qwen3_coder",
        (
            'I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nSay "hi"\n\n</p>\n</parameter>\n'
            "<parameter=metric>\nTrue\n</parameter>\n<parameter=zip>\nnull\n</parameter>\n</function>\n</tool_call>"
        ),
        Message("I look.", calls=[("get_weather", '{"city": "Say \\"hi\\"\\n\\n</p>", "metric": true, "zip": null}')]),
    ),
    ("qwen3_coder", "<function=get_time>\n</function>", Message(calls=[TIME])),
    ("qwen3_coder", "<tool_call>\nnothing", Message("<tool_call>\nnothing")),
    (
        "harmony",
        "<|channel|>analysis<|message|>2 + 2.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>",
        Message("4", "2 + 2."),
    ),
    (
        "harmony",
        (
            "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
            "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
            '{"city": "Paris"}<|call|>'
        ),
        Message("I look.", "Look.", [PARIS]),
    ),
    (
        "harmony",
        "<|start|>assistant to=functions.get_time<|channel|>commentary<|message|><|call|>",
        Message(calls=[TIME]),
    ),
    ("harmony", "<|channel|>analysis to=python code<|message|>1+1<|call|>", Message(reasoning="1+1")),
    ("harmony", "<|channel|>fin", Message()),
    ("harmony", "no marks", Message("no marks")),
]


@pytest.mark.parametrize(("name", "text", "expected"), WRITTEN)
def test_calls_of_each_family(name: str, text: str, expected: Message) -> None:
    """Calls of each model family are parsed, and invalid calls are content."""
    assert read(only(name), text) == expected


@pytest.mark.parametrize("tags", REASONING.values())
def test_reasoning_before_the_answer(tags: Any) -> None:
    """Reasoning between the tags of each family is parsed without white space around it, and marks of an answer are
    left out."""
    kind = only("hermes", tags.name)
    answer = 'Yes. <tool_call>{"name": "get_time"}</tool_call>'
    for opening, closing in ((tags.opening, tags.closing), *tags.others):
        for before, after in (("", ""), *tags.answers):
            text = f"{opening}\nSo 1 < 2.\n{closing}\n\n{before}\n{answer}\n{after}"
            assert read(kind, text) == Message("Yes.", "So 1 < 2.", [TIME])
            assert read(kind, text.removeprefix(opening), opened=True) == Message("Yes.", "So 1 < 2.", [TIME])
            assert read(kind, f"{before}Yes.\n{after}") == Message("Yes." if before else "Yes.\n")


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].start_marks])
def test_calls_in_reasoning(name: str) -> None:
    """A call in reasoning that is not closed ends it. In reasoning that is closed it is part of it."""
    kind = only(name, "think")
    call = MARKED.get(name) or next(text for each, text, whole in WRITTEN if each == name and len(whole.calls) == 1)
    call = call[call.index(next(mark for mark in FORMATS[name].start_marks if mark in call)) :]
    for text, opened in ((f"<think>\nI look.\n\n{call}", False), (f"I look. {call}", True)):
        whole = read(kind, text, opened)
        assert (whole.reasoning, whole.content, len(whole.calls)) == ("I look.", "", 1)
        assert read(kind, f"{text}</think>Hi", opened).calls == []
        assert read(kind, f"{text}</think>Hi", opened).content == "Hi"
    mark = FORMATS[name].start_marks[0]
    assert read(kind, f"<think>Not {mark} but\n{call}").reasoning == f"Not {mark} but"
    assert read(kind, f"<think>Not {mark} but") == Message(reasoning=f"Not {mark} but")


def test_reasoning_that_does_not_end() -> None:
    """Reasoning that is not closed extends to the end if there is no call to an offered tool in it."""
    for text in ("a <tool_call>{", 'a <tool_call>{"name": "get_news"} b', "a <tool_call> <tool_call> b"):
        assert read(only("hermes", "think"), f"<think>{text}") == Message(reasoning=text)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("</think>Hi", "Hi"),
        (" \n</think>\n\nHi", "Hi"),
        ("Hi</think>", "Hi"),
        ("Hi\n</think>\n\nyou", "Hi\nyou"),
        ("Hi</think> you", "Hi you"),
        ("End it with `</think>` or '</think>'.", "End it with `</think>` or '</think>'."),
    ],
)
def test_stray_closing_tags(text: str, content: str) -> None:
    """Closing tags without reasoning are left out, unless they are in quotes."""
    assert read(only("hermes", "think"), text) == Message(content)
    assert read(only("none", "think"), text) == Message(content)


@pytest.mark.parametrize(
    ("name", "text", "content"),
    [
        ("hermes", 'I look.\n<tool_call>\n{"name": "look', "I look."),
        ("hermes", "I look.\n<tool_ca", "I look."),
        ("hermes", "1 <", "1 <"),
        ("hermes", "The <tool_call> is", "The <tool_call> is"),
        ("llama3_json", '{"name": "get_wea', ""),
        ("llama3_json", '[{"name": "get_weather', ""),
        ("llama3_json", '{"name": "Ada', '{"name": "Ada'),
        ("llama3_json", '{"answer": 4', '{"answer": 4'),
        ("phi4_mini", "I use functools", "I use functools"),
        ("kimi_k2", "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_we", ""),
        ("glm", "Look:\n<tool_call>get_we", "Look:"),
    ],
)
def test_the_start_of_a_call_that_was_cut_off(name: str, text: str, content: str) -> None:
    """The start of a call at the end of a text that was cut off is left out, and is content if the model ended it."""
    assert read(only(name), text, cut=True) == Message(content)
    assert read(only(name), text) == Message(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", '<tool_call>{"name": "get_time", "argu'),
        ("llama3_json", '{"name": "get_time"'),
        ("cohere", '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "get_time", '),
        ("kimi_k2", "<|tool_call_begin|>functions.get_time:0<|tool_call_arg"),
    ],
)
def test_a_call_that_was_cut_off_after_its_name(name: str, text: str) -> None:
    """A call that was cut off between its name and its arguments is a call without arguments."""
    assert read(only(name), text, cut=True) == Message(calls=[("get_time", "")])
    assert read(only(name), text) == Message(text)


def test_a_call_after_many_marks() -> None:
    """Text with any number of marks is parsed in linear time, so that a call after very many is content."""
    text = '<tool_call>{"a": {' * 9000 + "}}" * 9000
    assert read(only("hermes", "think"), text) == Message(text)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<|channel>thought\nHm\n<channel|>Yes", "Hm", "Yes"),
        ("<|channel>thought<channel|>Yes", "", "Yes"),
        ("<|channel>thousand reasons<channel|>Yes", "thousand reasons", "Yes"),
        ("<|channel><|channel>thought\n<channel|>Yes", "", "Yes"),
        ("<|channel>thought\n<channel|>Yes<|channel>thought\n<channel|><channel|>", "", "Yes"),
        ("One\n<|channel>thought\nHm<channel|>\nTwo", "Hm", "One\n\nTwo"),
        ("<|channel>thought\nHm<channel|>One<|channel>Hm", "HmHm", "One"),
    ],
)
def test_reasoning_in_several_places(text: str, reasoning: str, content: str) -> None:
    """Gemma 4 names its channel of reasoning or not, and may open it again in the middle of an answer."""
    for calls in ("none", "gemma4"):
        assert read(only(calls, "gemma4"), text) == Message(content=content, reasoning=reasoning)


def test_no_reasoning() -> None:
    """An answer without tags at its start is content, including later tags."""
    assert read(only("none", "think"), " Use <think> tags.") == Message(" Use <think> tags.")


MARKED = {
    **json_examples.CALLS,
    **{name: example.call for name, example in TAG_EXAMPLES.items()},
    "llama3_json": '<|python_tag|>{"name": "get_time"}',
    "xlam": '```json\n[{"name": "get_time"}]\n```',
    "functionary_v3_2": ">>>get_time\n{}",
    "mistral_args": "[TOOL_CALLS]get_time[ARGS]{}",
    "deepseek": f"{CALLS}{CALL}get_time{SEP}{{}}{CALL_END}{CALLS_END}",
    "deepseek_v3": f"{CALLS}{CALL}function{SEP}get_time\n```json\n{{}}\n```{CALL_END}{CALLS_END}",
    "pythonic": "<|tool_call_start|>[get_time()]<|tool_call_end|>",
    "olmo3": "<function_calls>get_time()</function_calls>",
    "kimi_k3": (
        '<|open|>tools<|sep|><|open|>call tool="get_time" index="1"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
    ),
}
SECTIONS = [style.section for style in STYLES if style.section[1]] + [
    ("```json", "```"),
    ("<tool_call>", "</tool_call>"),
]
EMPTY_SECTION = re.compile("|".join(rf"{re.escape(start)}\s*\[?\s*\]?\s*{re.escape(end)}" for start, end in SECTIONS))
FRAGMENTS = sorted(
    {fragment for kind in FORMATS.values() for fragment in (*kind.visible_marks, *kind.start_marks)}
    | {mark for tags in REASONING.values() for mark in (tags.opening, tags.closing, *tags.ends, *tags.marks)}
    | {'{"name": "get_time", "arguments": ', '"arguments": {"a": "', "get_weather", "<think>", "</think>", "```json\n"}
    | {
        "<function=get_weather>",
        "<parameter=city>",
        "</parameter>",
        "</function>",
        "</arg_value>\n",
        '<invoke name="get_weather">',
        '<parameter name="zip">',
        "</invoke>",
        "call:get_weather{",
        "city:",
        "[get_weather(",
        "city=",
        "functions.",
    }
    | set('{}[]()"\\,: \n=1e>')
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=14).map("".join)
CALLS_OF_FORMATS = [*json_examples.CALLS.values(), *(example.call for example in TAG_EXAMPLES.values())]
WELL_FORMED = st.sampled_from([text for _, text, _ in WRITTEN] + CALLS_OF_FORMATS)
MANGLED = st.builds(
    lambda text, start, end, between: text[: min(start, end)] + between + text[max(start, end) :],
    WELL_FORMED,
    st.integers(0, 120),
    st.integers(0, 120),
    st.sampled_from(["", *FRAGMENTS]),
)
KINDS = [
    *(only(name, tags) for name in FORMATS for tags in ("none", "think")),
    *(only("hermes", tags) for tags in REASONING),
    only("cohere", "cohere"),
    only("kimi_k3", "kimi_k3"),
]


@given(st.sampled_from(KINDS), TEXTS | WELL_FORMED | MANGLED, st.booleans(), st.booleans(), st.data())
def test_any_pieces_give_the_same(kind: ModelFormat, text: str, opened: bool, cut: bool, data: st.DataObject) -> None:
    """Any text in any pieces gives the same message as in one piece, and the sizes of parts add up to its length."""
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    edges = [0, *sorted(cuts), len(text)]
    parts = parts_of(kind, [text[start:end] for start, end in pairwise(edges)], opened, cut)
    assert message(parts) == message(parts_of(kind, [text], opened, cut))
    assert sum(part.size for part in parts) == len(text)


@given(st.sampled_from(KINDS), TEXTS | MANGLED)
def test_parts_are_aligned_with_the_text(kind: ModelFormat, text: str) -> None:
    """Content and reasoning equal the text at their position, so that logprobs can be aligned by sizes."""
    at = 0
    for part in parts_of(kind, text):
        if isinstance(part, Content | Reasoning):
            assert part.text == text[at : at + part.size]
        at += part.size


@given(st.sampled_from([only(name) for name in FORMATS if name != "harmony"]), TEXTS | MANGLED)
def test_nothing_is_lost(kind: ModelFormat, text: str) -> None:
    """A text without a valid call is content, including its marks and white space, but for sections without calls."""
    whole = read(kind, text)
    assert whole.calls or whole == Message(text) or EMPTY_SECTION.search(text)


@given(st.dictionaries(st.text(), st.recursive(st.text() | st.integers() | st.none(), st.lists), max_size=3))
def test_arguments_in_json_pass_unchanged(arguments: dict[str, Any]) -> None:
    """JSON arguments are passed on unchanged, whatever strings they contain."""
    written = json.dumps(arguments, ensure_ascii=False)
    for name, text in [
        ("hermes", f'<tool_call>{{"name": "f", "arguments": {written}}}</tool_call>'),
        ("mistral", f"[TOOL_CALLS]f[ARGS]{written}"),
        ("deepseek", f"{CALL}f{SEP}{written}{CALL_END}"),
        ("harmony", f"<|channel|>commentary to=functions.f<|message|>{written}<|call|>"),
    ]:
        assert read(only(name), text) == Message(calls=[("f", written)])


EARLY = {
    **json_examples.EARLY,
    "hermes": '<tool_call>{"name": "get_weather", "arguments": {"city": "Par',
    "llama3_json": '{"name": "get_weather", "parameters": {"city": "Par',
    "mistral": '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Par',
    "mistral_args": '[TOOL_CALLS]get_weather[ARGS]{"city": "Par',
    "deepseek": f'{CALLS}{CALL}get_weather{SEP}{{"city": "Par',
    "deepseek_v3": f'{CALLS}{CALL}function{SEP}get_weather\n```json\n{{"city": "Par',
    **{name: example.cut for name, example in TAG_EXAMPLES.items()},
    "harmony": '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Par',
    "pythonic": "[get_weather(city='Par', days=",
    "olmo3": "<function_calls>get_weather(city='Par', days=",
    "kimi_k3": (
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|>'
        '<|open|>argument key="city" type="string"<|sep|>Par'
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_are_emitted_early(name: str) -> None:
    """Arguments of a call are emitted before the call is complete."""
    parser = only(name).parser(TOOLS)
    assert parser is not None
    (call,) = message(parser.decode(EARLY[name])).calls
    assert call[0] == "get_weather"
    assert call[1].startswith('{"city": "Par')


def test_text_is_emitted_early() -> None:
    """Text is held back only if it may be part of a mark or white space before one."""
    parser = only("hermes", "think").parser(TOOLS)
    assert parser is not None
    assert message(parser.decode("<think>So")).reasoning == "So"
    assert message(parser.decode(" it is</thi")).reasoning == " it is"
    assert message(parser.decode("nk>Hi \n<tool_")) == Message("Hi")
    assert message(parser.decode("box>")) == Message(" \n<tool_box>")


def test_nothing_to_parse() -> None:
    """Without tools and reasoning there is no parser, unless the format marks text as well."""
    assert only("hermes").parser(None) is None
    assert only("none").parser(TOOLS) is None
    assert only("harmony").parser(None) is not None
    parser = only("functionary_v3_2").parser(None)
    assert parser is not None
    assert message(parser.decode("all\nHi >>>get_time\n{}") + parser.flush()) == Message("Hi >>>get_time\n{}")
    assert only("hermes", "think").parser(None) is not None
