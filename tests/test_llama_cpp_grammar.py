"""Output of the real model that must fit a grammar."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import jsonschema
import pytest

from subnet.engines.llama_cpp import LlamaCppEngine
from subnet.errors import InvalidRequest
from subnet.generation import Grammar
from subnet.node_info import GrammarKind
from tests.real_engine import PERSON, chat, ids_of, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_token_of_a_character_is_delivered(engine: LlamaCppEngine, pieces: list[bytes]) -> None:
    """Characters of several tokens arrive whole, with a logprob for each token."""
    text = "🎉🦜日本語"
    schema = json.dumps({"const": text})
    tokens, deltas = await run(
        engine, chat("Party!"), grammar=Grammar("json_schema", schema), max_tokens=40, logprobs=0
    )
    assert b"".join(pieces[token] for token in tokens).decode() == json.dumps(text, ensure_ascii=False)
    assert len(tokens) > len(text)
    assert all(len(delta.logprobs or []) == len(delta.tokens) for delta in deltas)


LETTERS = {"type": "string", "maxLength": 8}
ENDING: list[dict[str, Any]] = [
    {"enum": ["red", "green", 3, None]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {
        "type": "object",
        "properties": {"id": {"type": "integer", "minimum": 1, "maximum": 12}, "tags": {"$ref": "#/$defs/tags"}},
        "required": ["id", "tags"],
        "additionalProperties": False,
        "$defs": {"tags": {"type": "array", "items": LETTERS, "maxItems": 2}},
    },
    {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"a": LETTERS}, "additionalProperties": False}]},
]
LIST = {
    "type": "object",
    "properties": {"name": LETTERS, "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
    "required": ["name", "next"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("schema", [*ENDING, LIST])
async def test_every_answer_fits_its_schema_or_was_cut(
    engine: LlamaCppEngine, pieces: list[bytes], schema: dict[str, Any]
) -> None:
    """At temperature 1, whatever the seed: an answer that ends is valid, and only max_tokens cuts one."""
    grammar = Grammar("json_schema", json.dumps(schema))
    asked = [run(engine, chat("Hi"), seed=seed, grammar=grammar, max_tokens=40) for seed in range(6)]
    for tokens, deltas in await asyncio.gather(*asked):
        if deltas[-1].finish_reason == "stop":
            jsonschema.validate(json.loads(b"".join(pieces[token] for token in tokens)), schema)
        else:
            assert schema is LIST
            assert len(tokens) == 40


async def test_a_cut_answer_would_have_gone_on_to_fit(engine: LlamaCppEngine, pieces: list[bytes]) -> None:
    """Cut anywhere, the end is "length" and the text the beginning of the whole; cut at its end, it is "stop"."""
    grammar = Grammar("json_schema", json.dumps(ENDING[2]))
    whole, _ = await run(engine, chat("Hi"), grammar=grammar, max_tokens=100)
    assert set(json.loads(b"".join(pieces[token] for token in whole))) == {"id", "tags"}
    for cut in (1, len(whole) // 2, len(whole) - 1, len(whole)):
        tokens, deltas = await run(engine, chat("Hi"), grammar=grammar, max_tokens=cut)
        assert tokens == whole[:cut]
        assert deltas[-1].finish_reason == ("stop" if cut == len(whole) else "length")


@pytest.mark.parametrize("kind", ["regex", "lark"])
async def test_output_fits_other_grammars(engine: LlamaCppEngine, pieces: list[bytes], kind: GrammarKind) -> None:
    """A regular expression holds for the whole text; a Lark grammar may hold JSON within text."""
    text = {
        "regex": r"(yes|no), [0-9]{3}",
        "lark": 'start: ("yes" | "no") ", " %json {"type": "integer", "minimum": 100, "maximum": 999}',
    }
    for seed in range(4):
        tokens, deltas = await run(engine, chat("Hi"), seed=seed, grammar=Grammar(kind, text[kind]), max_tokens=20)
        assert re.fullmatch("(yes|no), [0-9]{3}", b"".join(pieces[token] for token in tokens).decode())
        assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    "grammar", [Grammar("regex", "("), Grammar("regex", "(?=a)b"), Grammar("lark", "no"), Grammar("lark", "start: a")]
)
async def test_a_bad_grammar_is_refused(engine: LlamaCppEngine, grammar: Grammar) -> None:
    """What does not compile is the client's mistake, in one line."""
    with pytest.raises(InvalidRequest, match="Invalid value for 'grammar': ") as caught:
        await run(engine, chat("Hi"), grammar=grammar)
    assert caught.value.param == "grammar"
    assert "\n" not in caught.value.message


TOO_MANY_WAYS = json.dumps(
    {
        "anyOf": [
            {"type": "object", "properties": {f"a{i}": {"type": "string", "pattern": "^(x+x+)+y$"}}} for i in range(500)
        ]
    }
)


@pytest.mark.parametrize(
    "schema", ["{", '{"type": "nope"}', '{"$ref": "#/nowhere"}', '"' + "x" * 300_000 + '"', "[" * 9999, TOO_MANY_WAYS]
)
async def test_a_bad_schema_is_refused(engine: LlamaCppEngine, schema: str) -> None:
    """What is no schema, or too large a one, is the client's mistake, and the engine goes on."""
    with pytest.raises(InvalidRequest) as caught:
        await run(engine, chat("Hi"), grammar=Grammar("json_schema", schema))
    assert caught.value.param == "grammar"
    assert "\n" not in caught.value.message


async def test_delivered_tokens_must_fit_the_schema(engine: LlamaCppEngine) -> None:
    """Tokens that another engine made without the schema do not bring this one down."""
    with pytest.raises(InvalidRequest, match="do not match"):
        await run(engine, chat("Hi"), ids_of("Once upon").tolist(), grammar=Grammar("json_schema", PERSON))
