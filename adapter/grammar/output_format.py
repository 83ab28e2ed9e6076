"""The format that the text of an answer must have, and its grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from adapter.errors import BadRequest
from adapter.grammar.json_schema import in_lark, written
from subnet.generation import Grammar

LONGEST_TEXT = 16 * 1024
"""Characters of a regular expression or a grammar: GBNF takes three microseconds each."""

_OBJECT: Mapping[str, Any] = {"type": "object"}
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")
_SLASH_OR_LINE = re.compile(r"\\.|[/\n\r]", re.DOTALL)
_IN_LARK = {"/": r"\/", "\n": r"\n", "\r": r"\r"}


class Place(msgspec.Struct, frozen=True):
    """Where a request has a schema (or the like), what it is to be called, and the code of its errors."""

    param: str
    owner: str
    code: str = "invalid_json_schema"

    def refusal(self, path: Sequence[str | int], reason: str) -> BadRequest:
        """The error for `path` in there, in OpenAI's words."""
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:64]}" for step in path)
        context = f"In context=({', '.join(map(repr, path))}), " if path else ""
        return BadRequest(
            f"Invalid schema for {self.owner}: {context[:512]}{reason}.",
            param=(self.param + steps)[:512],
            code=self.code,
        )


class OutputFormat(msgspec.Struct, frozen=True):
    """The format that an answer must have, as a client gave it at `place`.

    `value` is a JSON schema or its text, a regular expression, the texts to choose from, or a grammar in the notation
    of Lark or of GBNF; None for any JSON object. `strict` asks for OpenAI's rules for schemas, too.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice", "grammar"]
    place: Place
    value: Any = None
    strict: bool = False


class Form(msgspec.Struct, frozen=True):
    """`grammar` is for an answer that is nothing else. `schema` is set where it is made from one."""

    grammar: Grammar
    place: Place
    schema: Mapping[str, Any] | None = None
    strict: bool = False

    @property
    def body(self) -> str | None:
        """As a Lark expression, to be a part of a larger grammar; None for one that is a whole of its own."""
        if self.schema is not None:
            return in_lark(self.schema)
        if self.grammar.kind == "regex":
            return f"/{_SLASH_OR_LINE.sub(_in_lark, self.grammar.text)}/"
        return None


def compiled(wanted: OutputFormat) -> Form:
    """Returns the format with its grammar. Raises BadRequest for an invalid JSON schema, regular expression or grammar;
    whether an engine can follow a schema is not checked here."""
    place = wanted.place
    match wanted.kind:
        case "json_object":
            return _json(_OBJECT, place)
        case "json_schema":
            return _json(_parsed(wanted.value, place), place, wanted.strict)
        case "choice":
            options = "|".join(_SPECIAL.sub(r"\\\g<0>", option) for option in wanted.value)
            return Form(_tried(Grammar("regex", f"({options})"), place), place)
        case "regex":
            return Form(_tried(Grammar("regex", wanted.value), place), place)
        case "grammar":
            return Form(_tried(Grammar("lark", _lark(wanted.value, place)), place), place)


def _json(schema: Mapping[str, Any], place: Place, strict: bool = False) -> Form:
    return Form(Grammar("json_schema", written(schema)), place, schema, strict)


def _parsed(given: Mapping[str, Any] | str, place: Place) -> Mapping[str, Any]:
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise place.refusal((), f"expected a JSON schema as an object or as a JSON string: {error}") from error


def _lark(text: str, place: Place) -> str:
    try:
        return any_to_lark(text[: LONGEST_TEXT + 1])
    except Exception as error:  # the converter raises these bare, and others where it runs off the end
        raise _wrong(place, str(error)) from error


def _tried(grammar: Grammar, place: Place) -> Grammar:
    if len(grammar.text) > LONGEST_TEXT:
        raise _wrong(place, f"expected at most {LONGEST_TEXT} characters")
    make = LLMatcher.grammar_from_regex if grammar.kind == "regex" else LLMatcher.grammar_from_lark
    wrong, messages = LLMatcher.validate_grammar_with_warnings(make(grammar.text))
    if wrong:
        raise _wrong(place, " ".join(messages[0].split()))
    return grammar


def _wrong(place: Place, why: str) -> BadRequest:
    return BadRequest(f"Invalid value for '{place.param}': {why[:300]}.", param=place.param, code="invalid_value")


def _in_lark(found: re.Match[str]) -> str:
    return _IN_LARK.get(found[0], found[0])
