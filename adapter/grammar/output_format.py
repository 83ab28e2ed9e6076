"""The form that the text of an answer must have: `response_format`, `structured_outputs` and `guided_*` as one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from adapter.api.chat.formats import Json, JsonObjectFormat, JsonSchemaFormat, StructuredOutputs, TextFormat
from adapter.api.sampling import SamplingRequest
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


def form_of(request: SamplingRequest) -> Form | None:
    """None for any text. Raises BadRequest for two forms at once, and for what is no JSON schema, no regular
    expression or no grammar. Whether a schema can be followed is not looked at."""
    asked, own = request.response_format, request.structured
    if own is None:
        return _of_format(asked)
    if asked is not None and not isinstance(asked, TextFormat):
        name = _name(request)
        raise BadRequest(
            f"Setting 'response_format' and '{name}' at the same time is not supported.",
            param=name,
            code="invalid_parameter_combination",
        )
    return _of_structured(own, _name(request))


def _of_format(asked: object) -> Form | None:
    if isinstance(asked, JsonObjectFormat):
        return _json(_OBJECT, Place("response_format", "response_format"))
    if isinstance(asked, JsonSchemaFormat):
        wanted = asked.json_schema
        place = Place("response_format.json_schema.schema", f"response_format '{wanted.name}'")
        # Strict rules are for schemas that were given.
        return _json(wanted.schema or _OBJECT, place, bool(wanted.strict and wanted.schema is not None))
    return None


def _of_structured(own: StructuredOutputs, name: str) -> Form:
    old = name.startswith("guided_")
    field = next(field for field in own.__struct_fields__ if getattr(own, field) not in (None, False))
    param = name if old else f"{name}.{field}"
    place = Place(param, param)
    if own.json is not None:
        return _json(_parsed(own.json, place), place)
    if own.regex is not None:
        return Form(_tried(Grammar("regex", own.regex), place), place)
    if own.choice is not None:
        options = "|".join(_SPECIAL.sub(r"\\\g<0>", option) for option in own.choice)
        return Form(_tried(Grammar("regex", f"({options})"), place), place)
    if own.grammar is not None:
        return Form(_tried(Grammar("lark", _lark(own.grammar, place)), place), place)
    return _json(_OBJECT, place)


def _json(schema: Mapping[str, Any], place: Place, strict: bool = False) -> Form:
    return Form(Grammar("json_schema", written(schema)), place, schema, strict)


def _parsed(given: Json, place: Place) -> dict[str, Any]:
    if isinstance(given, dict):
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


def _name(request: SamplingRequest) -> str:
    names = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
    return next(name for name in names if getattr(request, name) is not None)


def _in_lark(found: re.Match[str]) -> str:
    return _IN_LARK.get(found[0], found[0])
