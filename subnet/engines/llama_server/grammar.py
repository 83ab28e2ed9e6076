"""Grammars as llama-server takes them.

One that is built with llguidance takes Lark in llguidance's dialect, and fails on none: what it cannot compile it
ignores. So it is compiled here first. One that is built without, as the project's own releases are, takes JSON schemas,
and is ended by the mark of an llguidance grammar: it must never get one.
https://github.com/ggml-org/llama.cpp/blob/master/docs/llguidance.md
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from llguidance import LLMatcher

from subnet.errors import InvalidRequest
from subnet.generation import Grammar
from subnet.node_info import GrammarKind

MARK = "%llguidance"
# As in the llama.cpp engine: small models get lost in white space.
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def kinds(grammar: str) -> tuple[GrammarKind, ...]:
    """What a server takes that makes such a grammar of a JSON schema."""
    return ("json_schema", "regex", "lark") if grammar.startswith(MARK) else ("json_schema",)


async def limited(grammar: Grammar | None, taken: tuple[GrammarKind, ...]) -> dict[str, Any]:
    """The fields of a request for it. Raises InvalidRequest for a grammar that cannot be used."""
    if grammar is None:
        return {}
    try:
        if taken == ("json_schema",):
            return {"json_schema": msgspec.json.decode(grammar.text)}
        return {"grammar": await asyncio.to_thread(_lark, grammar)}
    except ValueError as error:
        raise _unusable(str(error)) from error


def _lark(grammar: Grammar) -> str:
    """Takes up to a second for a large one."""
    if grammar.kind == "json_schema":
        schema = msgspec.json.decode(grammar.text)
        styled = {**schema, "x-guidance": _STYLE} if isinstance(schema, dict) else schema
        text = f"start: %json {msgspec.json.encode(styled).decode()}"
    elif grammar.kind == "regex":
        text = msgspec.json.decode(LLMatcher.grammar_from_regex(grammar.text))["grammars"][0]["lark_grammar"]
    else:
        text = grammar.text
    if problem := LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(text)):
        raise _unusable(problem)
    return text if text.startswith(MARK) else f"{MARK} {{}}\n{text}"


def _unusable(reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for 'grammar': {reason.strip().partition(chr(10))[0][:300]}", param="grammar")
