"""Grammar-constrained output of the llama.cpp engine with a real model."""

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
    """Characters of several tokens are complete, with logprobs for each token."""
    text = "🎉🦜日本語"
    schema = json.dumps({"const": text})
    tokens, deltas = await run(
        engine, chat("Party!"), grammar=Grammar("json_schema", schema), max_tokens=40, logprobs=0
    )
    assert b"".join(pieces[token] for token in tokens).decode() == json.dumps(text, ensure_ascii=False)
    assert len(tokens) > len(text)
    assert all(len(delta.logprobs or []) == len(delta.tokens) for delta in deltas)


LETTERS = {"type": "string", "maxLength": 8}
FINITE: list[dict[str, Any]] = [
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
RECURSIVE = {
    "type": "object",
    "properties": {"name": LETTERS, "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
    "required": ["name", "next"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("schema", [*FINITE, RECURSIVE])
async def test_complete_answers_match_their_schema(
    engine: LlamaCppEngine, pieces: list[bytes], schema: dict[str, Any]
) -> None:
    """At temperature 1, every complete answer matches its schema, and only max_tokens leaves one incomplete."""
    grammar = Grammar("json_schema", json.dumps(schema))
    runs = [run(engine, chat("Hi"), seed=seed, grammar=grammar, max_tokens=40) for seed in range(6)]
    for tokens, deltas in await asyncio.gather(*runs):
        if deltas[-1].finish_reason == "stop":
            jsonschema.validate(json.loads(b"".join(pieces[token] for token in tokens)), schema)
        else:
            assert schema is RECURSIVE
            assert len(tokens) == 40


async def test_a_truncated_answer_is_a_prefix(engine: LlamaCppEngine, pieces: list[bytes]) -> None:
    """An answer cut by max_tokens is a prefix of the complete one and ends with "length"."""
    grammar = Grammar("json_schema", json.dumps(FINITE[2]))
    whole, _ = await run(engine, chat("Hi"), grammar=grammar, max_tokens=100)
    assert set(json.loads(b"".join(pieces[token] for token in whole))) == {"id", "tags"}
    for cut in (1, len(whole) // 2, len(whole) - 1, len(whole)):
        tokens, deltas = await run(engine, chat("Hi"), grammar=grammar, max_tokens=cut)
        assert tokens == whole[:cut]
        assert deltas[-1].finish_reason == ("stop" if cut == len(whole) else "length")


@pytest.mark.parametrize("kind", ["regex", "lark"])
async def test_output_matches_other_grammars(engine: LlamaCppEngine, pieces: list[bytes], kind: GrammarKind) -> None:
    """Output matches a regular expression as a whole, and a Lark grammar with embedded JSON."""
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
async def test_an_invalid_grammar_is_rejected(engine: LlamaCppEngine, grammar: Grammar) -> None:
    """A grammar that does not compile raises InvalidRequest with a message of one line."""
    with pytest.raises(InvalidRequest, match="Invalid value for 'grammar': ") as caught:
        await run(engine, chat("Hi"), grammar=grammar)
    assert caught.value.param == "grammar"
    assert "\n" not in caught.value.message


TOO_AMBIGUOUS = json.dumps(
    {
        "anyOf": [
            {"type": "object", "properties": {f"a{i}": {"type": "string", "pattern": "^(x+x+)+y$"}}} for i in range(500)
        ]
    }
)


@pytest.mark.parametrize(
    "schema", ["{", '{"type": "nope"}', '{"$ref": "#/nowhere"}', '"' + "x" * 300_000 + '"', "[" * 9999, TOO_AMBIGUOUS]
)
async def test_an_invalid_schema_is_rejected(engine: LlamaCppEngine, schema: str) -> None:
    """An invalid, too large or too ambiguous schema raises InvalidRequest, and the engine keeps running."""
    with pytest.raises(InvalidRequest) as caught:
        await run(engine, chat("Hi"), grammar=Grammar("json_schema", schema))
    assert caught.value.param == "grammar"
    assert "\n" not in caught.value.message


async def test_delivered_tokens_must_match_the_schema(engine: LlamaCppEngine) -> None:
    """Delivered tokens that do not match the schema raise InvalidRequest."""
    with pytest.raises(InvalidRequest, match="do not match"):
        await run(engine, chat("Hi"), ids_of("Once upon").tolist(), grammar=Grammar("json_schema", PERSON))
