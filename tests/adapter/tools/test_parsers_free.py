"""Grammars of free text with optional calls, which must fit their schemas."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.tools import FORMATS, ModelFormat, UnsupportedSchema, select_format
from tests.adapter.tools.test_parsers import message, only
from tests.adapter.tools.test_parsers_grammar import ACCEPTED, TOOLS, Vocabulary, Walk, fits, tags_of

BEGUN = ('{"name": "get_weather"', '{"name": "get_weather", "parameters": ', "[get_weather(", "[ get_time()]", "<|")
BARE = ("llama3_json", "xlam", "phi4_mini", "pythonic")
ANNOUNCED = ("harmony", "functionary_v3_2")
"""Formats in which text is announced."""


def free(kind: ModelFormat, several: bool = True, special: dict[str, int] | None = None, opened: bool = False) -> str:
    grammar = kind.free_grammar(TOOLS, several, special or {}, opened)
    assert grammar is not None
    return grammar


def accepts(kind: ModelFormat, text: str, **given: Any) -> bool:
    return Walk(free(kind, **given), Vocabulary(())).accepts(text)


@pytest.mark.parametrize("special", [False, True], ids=["text", "tokens"])
@pytest.mark.parametrize("name", FORMATS)
@given(st.integers(0), st.booleans(), st.booleans(), st.sampled_from(["none", "think"]))
@settings(max_examples=20, deadline=None)
def test_all_calls_fit(special: bool, name: str, seed: int, several: bool, opened: bool, reasoning: str) -> None:
    """All calls in a text that the grammar allows fit their schemas, even if it contains marks and parts of calls."""
    kind = only(name, reasoning)
    opened = opened and kind.tags is not None
    vocabulary = Vocabulary(kind.visible_marks if special else ())
    walk = Walk(free(kind, several, vocabulary.special, opened), vocabulary)
    text = walk.written(Random(seed), (*kind.visible_marks, *BEGUN, *tags_of(name)))
    parser = kind.parser(TOOLS, opened)
    assert parser is not None
    calls = message(parser.decode(text) + parser.flush()).calls
    assert several or len(calls) <= 1
    assert all(fits(call, json.loads(arguments)) for call, arguments in calls)


PLAIN = [
    "",
    "Hi",
    " \n",
    "1 < 2, [x] {y}",
    "<",
    "<<tool",
    "a\n[TOOL_",
    "<think",
    "{}",
    '{"name": "Bob"}',
    "[1, 2]",
    "[get(",
    "é",
]


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ANNOUNCED])
@pytest.mark.parametrize("reasoning", ["none", "think"])
def test_any_text(name: str, reasoning: str) -> None:
    """Any text without a call is allowed, also before a call."""
    for text in PLAIN:
        assert accepts(only(name, reasoning), text)
        if name not in BARE:
            assert accepts(only(name, reasoning), text + ACCEPTED[name])
            assert not accepts(only(name, reasoning), text + ACCEPTED[name].replace("city", "town"))


@pytest.mark.parametrize("name", FORMATS)
def test_calls(name: str) -> None:
    """The allowed number of calls with valid arguments is accepted, and nothing after them."""
    text = ACCEPTED[name]
    assert accepts(only(name), text)
    assert not accepts(only(name), text + "x")
    assert not accepts(only(name), text.replace("get_weather", "get_news")) or name in BARE
    assert not accepts(only(name), text.replace("city", "town"))
    assert not accepts(only(name), text.replace("Paris", "P"))


@pytest.mark.parametrize("name", BARE)
def test_calls_without_a_mark(name: str) -> None:
    """Calls without a mark must be valid at the start of an answer, and are plain text elsewhere, but for objects."""
    assert accepts(only(name), "\n" + ACCEPTED[name])
    assert accepts(only(name), "x" + ACCEPTED[name].replace("city", "town")) == (name in ("xlam", "pythonic"))
    assert not accepts(only(name), " " + ACCEPTED[name].replace("city", "town"))


def test_calls_after_a_mark_that_may_be_missing() -> None:
    """A call whose mark is optional needs the mark after text."""
    call = "<|python_tag|>" + ACCEPTED["llama3_json"]
    assert accepts(only("llama3_json"), "Sure. " + call)
    assert accepts(only("llama3_json"), call)
    assert not accepts(only("llama3_json"), "Sure. " + call.replace("city", "town"))


def test_calls_whose_mark_may_be_missing() -> None:
    """A call whose mark is written, but parsed without it as well, needs the mark."""
    call, kind = ACCEPTED["phi4_mini"], only("phi4_mini")
    assert accepts(kind, call)
    assert not accepts(kind, call.removeprefix("functools"))
    assert accepts(kind, '[{"name": "Bob"}]')


def test_calls_after_text_without_a_mark() -> None:
    """An object that calls a tool must be valid after text, too, and other objects are text."""
    call, kind = ACCEPTED["llama3_json"], only("llama3_json")
    assert accepts(kind, "Sure.\n" + call)
    assert accepts(kind, 'Sure. {"name": "get_news"} and {"a": {"x": "get_weather" , 1')
    assert not accepts(kind, f"Sure. {call} Done.")
    assert not accepts(kind, 'Sure. { "type": "function", "name" : "get_weather"}')


def test_text_with_reasoning() -> None:
    """Reasoning may contain marks of calls; the text after it is as without reasoning."""
    kind, call = only("hermes", "think"), ACCEPTED["hermes"]
    bad = call.replace("city", "town")
    assert accepts(kind, f"\n<think>{bad}</think>\n\nSure. {call}")
    assert not accepts(kind, f"<think>x</think>{bad}")
    assert not accepts(kind, "<think>x")
    assert accepts(kind, f"{bad}</think>{call}", opened=True)
    assert not accepts(kind, call, opened=True)


def test_messages_in_channels() -> None:
    """A harmony answer is a final message or a call, optionally after reasoning and an introduction."""
    call, reasoned = ACCEPTED["harmony"], "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant"
    introduced = "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant"
    for text in (call, introduced + call, "<|channel|>final<|message|>1 < 2"):
        assert accepts(only("harmony"), text)
        assert accepts(only("harmony"), reasoned + text)
    assert not accepts(only("harmony"), introduced + call.replace("city", "town"))
    assert not accepts(only("harmony"), f"<|channel|>final<|message|>{call}")
    assert not accepts(only("harmony"), "Hi")


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_without_a_schema(name: str) -> None:
    """An object schema without properties allows any arguments."""
    tools = {"get_weather": {"type": "object"}}
    grammar = only(name).free_grammar(tools, False, {})
    assert grammar is not None
    assert Walk(grammar, Vocabulary(())).accepts(ACCEPTED[name].replace("city", "town"))


@pytest.mark.parametrize("name", FORMATS)
def test_marks(name: str) -> None:
    """The first characters of marks do not recur within marks, but for repetitions at the start."""
    firsts = {mark[0] for mark in FORMATS[name].start_marks}
    assert not any(firsts & set(mark.lstrip(mark[0])) for mark in FORMATS[name].start_marks)


def test_models_without_calls() -> None:
    """Models without a format of calls need no grammar, as calls are not parsed."""
    assert select_format("", "none").free_grammar(TOOLS, True, {}) is None


def test_unsupported_schemas() -> None:
    """A schema that the format cannot enforce raises, as for forced calls."""
    tools = {"f": {"properties": {"day": {"type": "string", "format": "date"}}}}
    with pytest.raises(UnsupportedSchema, match="is not supported by this model's tool call format"):
        only("glm").free_grammar(tools, False, {})
