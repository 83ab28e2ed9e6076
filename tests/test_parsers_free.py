"""Grammars of answers that may be anything: text, with or without calls, all of which fit."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.tools import FORMATS, Kind, UnsupportedSchema, choose
from tests.test_parsers import message, only
from tests.test_parsers_grammar import ACCEPTED, TOOLS, Vocabulary, Walk, fits

BEGUN = ('{"name": "get_weather"', '{"name": "get_weather", "parameters": ', "[get_weather(", "[ get_time()]", "<|")
ENDS = ("</parameter>", "\n</parameter>")
BARE = ("llama3_json", "pythonic")


def free(kind: Kind, several: bool = True, special: dict[str, int] | None = None, opened: bool = False) -> str:
    grammar = kind.free(TOOLS, several, special or {}, opened)
    assert grammar is not None
    return grammar


def accepts(kind: Kind, text: str, **given: Any) -> bool:
    return Walk(free(kind, **given), Vocabulary(())).accepts(text)


@pytest.mark.parametrize("special", [False, True], ids=["text", "tokens"])
@pytest.mark.parametrize("name", FORMATS)
@given(st.integers(0), st.booleans(), st.booleans(), st.sampled_from(["none", "think"]))
@settings(max_examples=20, deadline=None)
def test_all_calls_fit(special: bool, name: str, seed: int, several: bool, opened: bool, reasoning: str) -> None:
    """Whatever is written, with marks and beginnings of calls all over it."""
    kind = only(name, reasoning)
    opened = opened and kind.tags is not None
    vocabulary = Vocabulary(kind.visible if special else ())
    walk = Walk(free(kind, several, vocabulary.special, opened), vocabulary)
    text = walk.written(Random(seed), (*kind.visible, *BEGUN, *ENDS))
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


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "harmony"])
@pytest.mark.parametrize("reasoning", ["none", "think"])
def test_any_text(name: str, reasoning: str) -> None:
    """Text that is no call may be anything, before a call too."""
    for text in PLAIN:
        assert accepts(only(name, reasoning), text)
        if name not in BARE:
            assert accepts(only(name, reasoning), text + ACCEPTED[name])
            assert not accepts(only(name, reasoning), text + ACCEPTED[name].replace("city", "town"))


@pytest.mark.parametrize("name", FORMATS)
def test_calls(name: str) -> None:
    """As many as may be, with arguments that fit, and nothing after them."""
    text = ACCEPTED[name]
    assert accepts(only(name), text)
    assert not accepts(only(name), text + "x")
    assert not accepts(only(name), text.replace("get_weather", "get_news")) or name in BARE
    assert not accepts(only(name), text.replace("city", "town"))
    assert not accepts(only(name), text.replace("Paris", "P"))


@pytest.mark.parametrize("name", BARE)
def test_calls_without_a_mark(name: str) -> None:
    """Only at the beginning of an answer are they calls, and there they have to fit."""
    assert accepts(only(name), "\n" + ACCEPTED[name])
    assert accepts(only(name), "x" + ACCEPTED[name].replace("city", "town"))
    assert not accepts(only(name), " " + ACCEPTED[name].replace("city", "town"))


def test_calls_after_a_mark_that_may_be_missing() -> None:
    """Where a call without it is one only at the beginning, one with it may come after text."""
    call = "<|python_tag|>" + ACCEPTED["llama3_json"]
    assert accepts(only("llama3_json"), "Sure. " + call)
    assert accepts(only("llama3_json"), call)
    assert not accepts(only("llama3_json"), "Sure. " + call.replace("city", "town"))


def test_text_with_reasoning() -> None:
    """What is reasoned is free, marks of calls and all; the text after it is as without."""
    kind, call = only("hermes", "think"), ACCEPTED["hermes"]
    bad = call.replace("city", "town")
    assert accepts(kind, f"\n<think>{bad}</think>\n\nSure. {call}")
    assert not accepts(kind, f"<think>x</think>{bad}")
    assert not accepts(kind, "<think>x")
    assert accepts(kind, f"{bad}</think>{call}", opened=True)
    assert not accepts(kind, call, opened=True)


def test_messages_in_channels() -> None:
    """A final message, or a call that another may introduce, after reasoning or not."""
    call, reasoned = ACCEPTED["harmony"], "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant"
    introduced = "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant"
    for text in (call, introduced + call, "<|channel|>final<|message|>1 < 2"):
        assert accepts(only("harmony"), text)
        assert accepts(only("harmony"), reasoned + text)
    assert not accepts(only("harmony"), introduced + call.replace("city", "town"))
    assert not accepts(only("harmony"), f"<|channel|>final<|message|>{call}")
    assert not accepts(only("harmony"), "Hi")


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_that_nobody_described(name: str) -> None:
    """A schema of an object that names no properties allows any."""
    tools = {"get_weather": {"type": "object"}}
    grammar = only(name).free(tools, False, {})
    assert grammar is not None
    assert Walk(grammar, Vocabulary(())).accepts(ACCEPTED[name].replace("city", "town"))


@pytest.mark.parametrize("name", FORMATS)
def test_marks(name: str) -> None:
    """What the making of pieces relies on: nothing within a mark begins another."""
    firsts = {mark[0] for mark in FORMATS[name].opening}
    assert not any(firsts & set(mark[1:]) for mark in FORMATS[name].opening)


def test_models_without_calls() -> None:
    """None are looked for, so nothing has to fit."""
    assert choose("", "none").free(TOOLS, True, {}) is None


def test_what_cannot_be_promised() -> None:
    """It is refused as for calls that are forced."""
    tools = {"f": {"properties": {"day": {"type": "string", "format": "date"}}}}
    with pytest.raises(UnsupportedSchema, match="is not supported by this model's tool call format"):
        only("glm").free(tools, False, {})
