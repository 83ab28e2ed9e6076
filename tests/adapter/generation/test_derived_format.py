"""Formats of calls and reasoning that no row describes, derived from what a template writes."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.generation.model_format import FoundFormat, find_format
from adapter.generation.read_back import Turn, written_turn
from adapter.grammar.accepts import accepts
from adapter.prompt import ChatTemplate
from adapter.tools import ModelFormat, UnsupportedSchema
from adapter.tools.derive import ReasoningSample, Sample, Samples, derive_calls, derive_tags
from adapter.tools.derive.marks import split_marks
from adapter.tools.derive.sample import ID, json_objects
from tests.adapter.generation.invented import INVENTED, UNCLEAR
from tests.adapter.generation.test_model_format import TOOL, written
from tests.adapter.tools.test_parsers import Message, message, parts_of, read
from tests.adapter.tools.test_parsers_grammar import TOOLS, Vocabulary, Walk, calls_in, fits
from tests.fakes import ASK, gateway, saying

CONTROL = ("<|end|>", "<|user|>", "<|assistant|>", "<zz>", "</zz>", "<|zc|>", "<|zn|>", "<|za|>", "\u25c1call\u25b7")
CALLS = [
    ("get_weather", {"city": "Bern", "days": 2}),
    ("get_weather", {"city": "Lima <b>", "note": "a\n b", "days": 9}),
]
SCHEMAS = {"get_weather": TOOLS["get_weather"]}


@cache
def found(call: str, reasoning: str = "", prompt: str = "") -> FoundFormat:
    return find_format(ChatTemplate(written(call, reasoning, prompt=prompt)), control=CONTROL)


def turn_of(result: FoundFormat, calls: list[tuple[str, Any]], **more: str) -> Turn:
    """Return what the template writes for `calls`."""
    message = {
        "role": "assistant",
        "content": "",
        **more,
        "tool_calls": [
            {"id": f"call0000{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for at, (name, arguments) in enumerate(calls)
        ],
    }
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in SCHEMAS]
    turn = written_turn(result.template, message, tools, control=CONTROL)
    assert turn is not None
    return turn


def text_of(result: FoundFormat, calls: list[tuple[str, Any]]) -> str:
    return turn_of(result, calls).answer.strip()


def parsed(message: Message) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments in message.calls]


@pytest.fixture(name="derived", params=INVENTED)
def derived_format(request: pytest.FixtureRequest) -> FoundFormat:
    return found(INVENTED[request.param])


def test_invented_formats(derived: FoundFormat) -> None:
    """The format of a family that nobody named is derived, and control tokens in its marks are shown."""
    assert (derived.tools, derived.problems) == ("derived", [])
    assert derived.template.supports_tools
    shown = {token for token in CONTROL if token in turn_of(derived, CALLS).answer}
    assert shown <= set(derived.format.visible_marks)


def test_calls_at_every_split(derived: FoundFormat) -> None:
    """Calls are read wherever a stream is split, with text before them."""
    text = "Let me see.\n" + text_of(derived, CALLS)
    for at in range(len(text) + 1):
        whole = message(parts_of(derived.format, [text[:at], text[at:]]))
        assert (parsed(whole), whole.content.strip()) == (CALLS, "Let me see.")


def test_missing_end_marks(derived: FoundFormat) -> None:
    """A call whose end marks, or a part of them, are missing is complete, and no mark becomes content."""
    text = text_of(derived, CALLS[:1])
    units = split_marks(text, CONTROL)
    complete = max((end for _, end, _ in json_objects(text)), default=text.rindex("2") + 1)
    for at in (len("".join(units[:at])) for at in range(len(units))):
        if at < complete:
            continue
        whole = read(derived.format, text[:at])
        assert whole.content == ""
        (call,) = whole.calls
        assert call[0] == "get_weather"
        assert '"city": "Bern"' in call[1]


def test_answers_that_are_cut_off(derived: FoundFormat) -> None:
    """A call that is cut off at any place is no content, and keeps the arguments so far."""
    text = text_of(derived, CALLS[:1])
    name, whole = "get_weather", read(derived.format, text).calls[0][1]
    for at in range(text.index(name) + len(name), len(text)):
        cut = read(derived.format, text[:at], cut=True)
        assert cut.content == ""
        assert all(called == name and whole.startswith(arguments) for called, arguments in cut.calls)


def test_forced_calls(derived: FoundFormat) -> None:
    """The grammar of forced calls allows only calls that are read and that fit their schemas."""
    vocabulary = Vocabulary(tuple(token for token in CONTROL if token in derived.format.visible_marks))
    marks = tuple(unit for unit in split_marks(text_of(derived, CALLS), CONTROL) if unit.strip())
    for several in (False, True):
        grammar = derived.format.call_grammar(TOOLS, several, vocabulary.special)
        text = Walk(grammar, vocabulary).written(Random(1), marks)
        calls = calls_in(derived.format, text, False)
        assert len(calls) == 1 or several
        assert all(fits(name, arguments) for name, arguments in calls)


def test_answers_without_calls(derived: FoundFormat) -> None:
    """Text, JSON and code stay content where calls are possible."""
    for text in ('{"a": [1, 2]}', "if (a < b) { f(x); }", "<b>bold</b> and call me", "1. one\n2. two"):
        assert read(derived.format, text).content == text
        assert accepts(derived.format.free_grammar(SCHEMAS, True, {}) or "", text)


@pytest.mark.parametrize("name", UNCLEAR)
def test_unclear_formats(name: str) -> None:
    """A format that is not clear is unknown, never guessed."""
    assert found(UNCLEAR[name]).tools == "unknown"


@pytest.mark.parametrize(
    ("reasoning", "prompt", "tags"),
    [
        ("<zr>{{ m.reasoning_content }}</zr>", "", ("<zr>", "</zr>")),
        ("[ZR]\n{{ m.reasoning_content }}\n[/ZR]\n\n", "", ("[ZR]", "[/ZR]")),
        ("\u25c1zr\u25b7{{ m.reasoning_content }}\u25c1/zr\u25b7", "", ("\u25c1zr\u25b7", "\u25c1/zr\u25b7")),
        ("{{ m.reasoning_content }}</zr>", "<zr>\n", ("<zr>", "</zr>")),
        ("<zr>{{ m.reasoning_content }}</zr>", "<zr>\n\n</zr>", ("<zr>", "</zr>")),
        ("{% if m.tool_calls %}<zr>{{ m.reasoning_content }}</zr>{% endif %}", "", ("<zr>", "</zr>")),
        ("<|zr>thought\n{{ m.reasoning_content }}<zr|>", "", ("<|zr>", "<zr|>")),
        (
            "Here is what I think:\n{{ m.reasoning_content }}\nHere is what I say:\n",
            "",
            (
                "Here is what I think:",
                "Here is what I say:",
            ),
        ),
    ],
)
def test_invented_reasoning(reasoning: str, prompt: str, tags: tuple[str, str]) -> None:
    """Tags of reasoning that nobody named are derived, with and without calls of a derived format."""
    result = found(INVENTED["tags"], reasoning, prompt)
    assert (result.tools, result.reasoning, result.problems) == ("derived", "derived", [])
    assert result.format.tags is not None
    assert (result.format.tags.opening, result.format.tags.closing) == tags
    text = f"{tags[0]}\nwhy\n{tags[1]}\n{text_of(result, CALLS)}"
    for at in range(len(text) + 1):
        whole = message(parts_of(result.format, [text[:at], text[at:]]))
        assert (whole.reasoning.strip(), whole.content, parsed(whole)) == ("why", "", CALLS)


@pytest.mark.parametrize(
    "reasoning",
    [
        "(thoughts: {{ m.reasoning_content }})",
        "{{ m.reasoning_content }}\n\n",
        "<zr>{{ m.reasoning_content }}\n\n",
        "Well: {{ m.reasoning_content }}. So: ",
        "<zr>{{ m.reasoning_content }}<zr>",
        "<zr>{{ m.reasoning_content | upper }}</zr>",
    ],
)
def test_unclear_reasoning(reasoning: str) -> None:
    """Tags that usual text may have, or that are missing, are not derived."""
    assert found(INVENTED["tags"], reasoning).reasoning in ("unknown", None)


async def test_derived_formats_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """A derived format is in /v1/models, in /nodes and in one line of the log, and its calls are answered."""
    caplog.set_level("INFO")
    template = written(INVENTED["tags"], "<zr>{{ m.reasoning_content }}</zr>")
    node = saying('<zz_call><fn is="f"><arg key="x">1</arg></fn></zz_call>', chat_template=template)
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        answer = (await client.post("/v1/chat/completions", json={**ASK, "tools": [TOOL]})).json()
        (model,) = (await client.get("/v1/models")).json()["data"]
        (row,) = (await client.get("/nodes")).json()["nodes"]
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    for shown in (model, row["deployments"][0]):
        assert (shown["tool_format"], shown["reasoning"]) == ("derived", "derived")
    (line,) = [text for text in caplog.messages if "derived" in text]
    assert line == "model 'mock': derived the format of tool calls and reasoning from its chat template"


_PIECES = ("f", "city", "Oslo", "days", "3", "{", "}", '{"f": {"city": "Oslo", "days": 3}}', "<z>", "\n", "[", "]", ID)
_TEXT = st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=20).map("".join)


@given(one=_TEXT, two=st.none() | _TEXT, reasoned=_TEXT, plain=_TEXT)
def test_any_text_can_be_a_sample(one: str, two: str | None, reasoned: str, plain: str) -> None:
    """Whatever a template writes, deriving a format from it and reading text in that format raise no error."""
    arguments = {"city": "Oslo", "days": 3}
    several = None if two is None else Sample(two, "f", (arguments, arguments))
    for calls in derive_calls(Samples(Sample(one, "f", (arguments,)), several, frozenset({"<z>", "days"}))):
        kind = ModelFormat(calls, derive_tags(ReasoningSample(reasoned, plain, "", "f", "city", ["<z>"])))
        read(kind, one + plain)
        with suppress(UnsupportedSchema):
            kind.call_grammar(TOOLS, True, {})


_PARTS = (
    "{{ name }}",
    "{{ args | tojson }}",
    "{{ call.id }}",
    "{{ '\\ud800' }}",
    "<z>",
    "</z>",
    "it",
    "=",
    "(",
    "\n",
    "[]",
)
_ARGUMENTS = ("{% for k, v in args.items() %}", "{{ k }}", "{{ v }}", "city", "{% endfor %}")


@settings(max_examples=25)
@given(st.lists(st.sampled_from(_PARTS), max_size=8), st.lists(st.sampled_from(_ARGUMENTS[1:4] + _PARTS), max_size=6))
def test_any_template_has_a_format(parts: list[str], inner: list[str]) -> None:
    """Whatever calls a template writes, the search for their format ends without an error."""
    call = "".join([*parts[:4], "{{ name }}", _ARGUMENTS[0], *inner, "{{ k }}=", "{{ v }}", _ARGUMENTS[4], *parts[4:]])
    assert found(call).tools is not None
