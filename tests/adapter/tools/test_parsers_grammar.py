"""Grammars of forced calls, which allow only calls that the parser accepts and that fit their schemas."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from adapter.tools import FORMATS, ModelFormat, UnsupportedSchema, select_format
from tests.adapter.tools import json_examples
from tests.adapter.tools.tag_examples import TAG_EXAMPLES
from tests.adapter.tools.test_parsers import CALL, CALL_END, CALLS, CALLS_END, SEP, Message, message, only

TOOLS: dict[str, dict[str, Any] | None] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 2, "maxLength": 8},
            "note": {"type": "string"},
            "unit": {"enum": ["c", "f"]},
            "days": {"$ref": "#/$defs/days"},
            "zip": {"type": ["string", "null"]},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
        "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
    },
    "get_time": None,
}
PROPERTIES = ["city", "note", "unit", "days", "zip"]


class Vocabulary:
    """Vocabulary of all bytes, marks as control tokens, and an end token, as llguidance needs it."""

    bos_token_id = None

    def __init__(self, marks: tuple[str, ...]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [mark.encode() for mark in marks] + [b"<end>"]
        self.special = {mark: 256 + index for index, mark in enumerate(marks)}
        self.special_token_ids = [*self.special.values(), len(self.tokens) - 1]
        self.eos_token_id = len(self.tokens) - 1

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)

    def split(self, text: str) -> list[int]:
        """Return the tokens of `text`, with marks as control tokens."""
        marks = "|".join(map(re.escape, self.special)) or "(?!)"
        return [token for piece in re.split(f"({marks})", text) for token in self.encode(piece)]

    def encode(self, mark: str) -> list[int]:
        return [self.special[mark]] if mark in self.special else self(mark)


class Walk:
    """Random generator of texts that a grammar allows. It prefers closing characters, so that texts end."""

    def __init__(self, grammar: str, vocabulary: Vocabulary) -> None:
        tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=[vocabulary.eos_token_id])
        self._matcher = LLMatcher(tokenizer, grammar, log_level=0)
        assert not self._matcher.is_error(), self._matcher.get_error()
        self._vocabulary = vocabulary

    def written(self, random: Random, marks: tuple[str, ...]) -> str:
        text = b""
        while True:
            mark = random.choice((self._vocabulary, self._vocabulary.split))(random.choice(marks))
            if random.random() < 0.2 and self._matcher.validate_tokens(mark) == len(mark):
                tokens = mark
            else:
                tokens = [self._draw(random)]
            if tokens == [self._vocabulary.eos_token_id]:
                return text.decode()
            assert self._matcher.consume_tokens(tokens)
            assert len(text) < 100_000
            text += b"".join(self._vocabulary.tokens[token] for token in tokens)

    def _draw(self, random: Random) -> int:
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = [int(token) for token in np.flatnonzero(bits[: len(self._vocabulary.tokens)])]
        assert allowed, self._matcher.get_error()
        closing = [token for token in allowed if token > 255 or chr(token) in '"}])<\n']
        usual = [token for token in allowed if token > 255 or 32 <= token < 127]
        return random.choice(closing) if closing and random.random() < 0.35 else random.choice(usual or allowed)

    def accepts(self, text: str) -> bool:
        tokens = self._vocabulary.split(text)
        return bool(self._matcher.consume_tokens(tokens)) and bool(self._matcher.is_accepting())


def calls_in(kind: ModelFormat, text: str, opened: bool) -> list[tuple[str, Any]]:
    parser = kind.parser(TOOLS, opened)
    assert parser is not None
    whole = message(parser.decode(text) + parser.flush())
    assert whole.content == ""
    return [(name, json.loads(arguments)) for name, arguments in whole.calls]


def fits(name: str, arguments: dict[str, Any]) -> bool:
    """Check arguments by hand, independently of llguidance's view of the schema."""
    if name == "get_time":
        return arguments == {}
    return (
        {"city", "days"} <= arguments.keys() <= set(PROPERTIES)
        and 2 <= len(arguments["city"]) <= 8
        and isinstance(arguments.get("note", ""), str)
        and arguments.get("unit", "c") in ("c", "f")
        and arguments["days"] in range(1, 10)
        and isinstance(arguments.get("zip"), str | None)
    )


@pytest.mark.parametrize("special", [False, True], ids=["text", "tokens"])
@pytest.mark.parametrize("name", FORMATS)
@given(st.integers(0), st.booleans(), st.booleans(), st.sampled_from(["none", "think"]))
@settings(max_examples=20, deadline=None)
def test_the_parser_reads_what_the_grammar_allows(
    special: bool, name: str, seed: int, several: bool, opened: bool, reasoning: str
) -> None:
    """Every text that the grammar allows is parsed as calls with valid arguments and nothing else. Marks are text or
    control tokens, and reasoning may come first."""
    kind = only(name, reasoning)
    opened = opened and kind.tags is not None
    vocabulary = Vocabulary(kind.visible_marks if special else ())
    grammar = kind.call_grammar(TOOLS, several, vocabulary.special, opened)
    text = Walk(grammar, vocabulary).written(Random(seed), (*kind.visible_marks, *tags_of(name)))
    calls = calls_in(kind, text, opened)
    assert calls
    assert several or len(calls) == 1
    assert all(fits(*call) for call in calls)


@pytest.mark.parametrize(
    ("name", "reasoning"),
    [("cohere", "cohere"), ("kimi_k3", "kimi_k3"), ("hermes", "think_response"), ("granite", "granite")],
)
@given(st.integers(0), st.booleans())
@settings(max_examples=10, deadline=None)
def test_the_parser_reads_calls_or_an_answer_after_reasoning(
    name: str, reasoning: str, seed: int, opened: bool
) -> None:
    """What the grammar of an answer or calls allows is read as one of them, with the family's reasoning tags and marks
    around an answer."""
    kind = only(name, reasoning)
    vocabulary = Vocabulary(tuple(mark for mark in kind.visible_marks if mark.startswith("<")))
    grammar = kind.content_grammar('%json {"type": "integer"}', vocabulary.special, opened, TOOLS, True)
    assert grammar is not None
    text = Walk(grammar, vocabulary).written(Random(seed), (*kind.visible_marks, "<|close|>argument<|sep|>"))
    parser = kind.parser(TOOLS, opened)
    assert parser is not None
    whole = message(parser.decode(text) + parser.flush())
    assert all(fits(call, json.loads(arguments)) for call, arguments in whole.calls)
    assert whole.content == "" if whole.calls else re.fullmatch(r"\s*-?\d+\s*", whole.content)


ACCEPTED = {
    **json_examples.CALLS,
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {json_examples.WEATHER}}}\n</tool_call>',
    "llama3_json": f'{{"name": "get_weather", "parameters": {json_examples.WEATHER}}}',
    "pythonic": '[get_weather(city="Paris", days=3)]',
    "kimi_k3": (
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="city" type="string"'
        '<|sep|>Paris<|close|>argument<|sep|><|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|>'
        "<|close|>call<|sep|><|close|>tools<|sep|>"
    ),
    "olmo3": '<function_calls>get_weather(city="Paris", days=3)</function_calls>',
    "mistral": f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {json_examples.WEATHER}}}]',
    "mistral_args": f"[TOOL_CALLS]get_weather[ARGS]{json_examples.WEATHER}",
    "deepseek": f"{CALLS}{CALL}get_weather{SEP}{json_examples.WEATHER}{CALL_END}{CALLS_END}",
    "deepseek_v3": f"{CALLS}{CALL}function{SEP}get_weather\n```json\n{json_examples.WEATHER}\n```{CALL_END}{CALLS_END}",
    **{name: example.call for name, example in TAG_EXAMPLES.items()},
    "harmony": f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{json_examples.WEATHER}",
}


def tags_of(name: str) -> list[str]:
    """Return what looks like a tag in a call of the format, also after a line end, and ends of arguments."""
    ends = ["</parameter>", "\n</parameter>", "<|close|>argument<|sep|>"]
    return ends + [
        line + tag for tag in re.findall(r"(?:\]<\]minimax\[>\[)?<[^<>]*>", ACCEPTED[name]) for line in ("", "\n")
    ]


def accepts(name: str, text: str, several: bool = False) -> bool:
    return Walk(only(name).call_grammar(TOOLS, several, {}), Vocabulary(())).accepts(text)


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_grammar_accepts(name: str) -> None:
    """The grammar accepts a call as the format's models write it, and rejects incomplete calls, trailing text, unknown
    tools and other arguments."""
    text = ACCEPTED[name]
    assert accepts(name, text)
    assert accepts(name, text, several=True)
    assert not accepts(name, text[:-1])
    assert not accepts(name, f"Sure. {text}")
    assert not accepts(name, text + text)
    assert not accepts(name, text.replace("get_weather", "get_news"))
    assert not accepts(name, text.replace("3", "30"))
    assert not accepts(name, text.replace("Paris", "P"))
    assert not accepts(name, text.replace("city", "town"))


def test_a_single_tool() -> None:
    """A grammar for one tool rejects calls to others."""
    grammar = only("hermes").call_grammar({"get_time": None}, False, {})
    assert Walk(grammar, Vocabulary(())).accepts('<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>')
    assert not Walk(grammar, Vocabulary(())).accepts(ACCEPTED["hermes"])


def test_a_model_without_calls_gets_the_hermes_format() -> None:
    """A call can be forced from a model without a format of calls, in the hermes format."""
    assert select_format("", "none").call_grammar(TOOLS, False, {}) == only("hermes").call_grammar(TOOLS, False, {})


@pytest.mark.parametrize("name", TAG_EXAMPLES)
@pytest.mark.parametrize("keyword", ["pattern", "format"])
def test_unsupported_strings(name: str, keyword: str) -> None:
    """Formats with unquoted strings reject their patterns, and name the place in the schema."""
    tools = {"f": {"properties": {"day": {"type": "string", keyword: "date"}}}}
    with pytest.raises(UnsupportedSchema) as caught:
        only(name).call_grammar(tools, False, {})
    assert caught.value.path == ("f", "day", keyword)


def test_required_arguments_that_are_not_described() -> None:
    """Formats with separate arguments reject required arguments without a schema."""
    with pytest.raises(UnsupportedSchema, match="'day' is listed in 'required' but not in 'properties'"):
        only("pythonic").call_grammar({"f": {"required": ["day"]}}, False, {})


@pytest.mark.parametrize(
    ("kind", "opened", "before", "without"),
    [
        (only("harmony"), False, "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant", ""),
        (only("hermes", "think"), False, "<think>\nHm\n</think>\n\n", ""),
        (only("none", "think"), True, "Hm</think>", "</think>"),
    ],
)
@pytest.mark.parametrize("special", [False, True], ids=["text", "tokens"])
def test_an_answer_after_reasoning(kind: ModelFormat, opened: bool, before: str, without: str, special: bool) -> None:
    """A grammar for the content allows reasoning before it."""
    vocabulary = Vocabulary(kind.visible_marks if special else ())
    grammar = kind.content_grammar('%json {"type": "integer"}', vocabulary.special, opened)
    assert grammar is not None
    final = "<|channel|>final<|message|>" if kind.visible_marks[0] == "<|start|>" else ""
    for text, accepted in [
        (before + final + "42", True),
        (without + final + "42", True),
        (before + final + "x", False),
    ]:
        assert Walk(grammar, vocabulary).accepts(text) == accepted
    parser = kind.parser(TOOLS, opened)
    assert parser is not None
    assert message(parser.decode(before + final + "42") + parser.flush()) == Message("42", "Hm")


def test_content_without_reasoning() -> None:
    """A format without reasoning needs no grammar around that of the content."""
    assert only("hermes").content_grammar("/x/", {}) is None


@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_or_a_call(name: str) -> None:
    """A grammar for content or calls allows both, and nothing else."""
    grammar = only(name).content_grammar('%json {"type": "integer"}', {}, tools=TOOLS, several=False)
    assert grammar is not None
    final = {"harmony": "<|channel|>final<|message|>", "functionary_v3_2": "all\n"}.get(name, "")
    for text, accepted in [(ACCEPTED[name], True), (final + "42", True), (final + "x", False)]:
        assert Walk(grammar, Vocabulary(())).accepts(text) == accepted
