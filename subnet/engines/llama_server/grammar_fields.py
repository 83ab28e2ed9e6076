"""Conversion of grammars to request fields of llama-server.

A server built with llguidance accepts Lark in llguidance's dialect. It silently ignores a grammar that it cannot
compile, so grammars are compiled here first. A server built without llguidance, as official releases are, accepts JSON
schemas, and crashes on the mark of an llguidance grammar, so it must never receive one.
https://github.com/ggml-org/llama.cpp/blob/master/docs/llguidance.md
"""

from __future__ import annotations

from typing import Any

import msgspec
from llguidance import LLMatcher

from subnet.errors import InvalidRequest
from subnet.generation import Grammar
from subnet.node_info import GrammarKind
from subnet.panics import LibraryPanic, panics_as_errors
from subnet.threads import Threads

LLGUIDANCE_MARK = "%llguidance"
_threads = Threads(2, "grammar")
# As in the llama.cpp engine: small models get stuck in flexible whitespace.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def supported_kinds(grammar: str) -> tuple[GrammarKind, ...]:
    """Return the kinds of grammars that a server supports, from the `grammar` to which it converts a JSON schema."""
    return ("json_schema", "regex", "lark") if grammar.startswith(LLGUIDANCE_MARK) else ("json_schema",)


async def to_request_fields(grammar: Grammar | None, supported: tuple[GrammarKind, ...]) -> dict[str, Any]:
    """Return the request fields for `grammar`, for a server that supports the kinds `supported`.

    Raises InvalidRequest if the grammar is invalid.
    """
    if grammar is None:
        return {}
    try:
        if supported == ("json_schema",):
            return {"json_schema": msgspec.json.decode(grammar.text)}
        return {"grammar": await _threads.run(_to_lark, grammar)}
    except (ValueError, LibraryPanic) as error:
        raise _invalid_grammar(str(error)) from error


def _to_lark(grammar: Grammar) -> str:
    """Convert a grammar to Lark and compile it, which takes up to a second if it is large."""
    with panics_as_errors:
        return _convert(grammar)


def _convert(grammar: Grammar) -> str:
    if grammar.kind == "json_schema":
        schema = msgspec.json.decode(grammar.text)
        styled = {**schema, "x-guidance": _JSON_STYLE} if isinstance(schema, dict) else schema
        text = f"start: %json {msgspec.json.encode(styled).decode()}"
    elif grammar.kind == "regex":
        text = msgspec.json.decode(LLMatcher.grammar_from_regex(grammar.text))["grammars"][0]["lark_grammar"]
    else:
        text = grammar.text
    if problem := LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(text)):
        raise _invalid_grammar(problem)
    return text if text.startswith(LLGUIDANCE_MARK) else f"{LLGUIDANCE_MARK} {{}}\n{text}"


def _invalid_grammar(reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for 'grammar': {reason.strip().partition(chr(10))[0][:300]}", param="grammar")
