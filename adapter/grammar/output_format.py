"""Output formats of answers, and their grammars."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from adapter.errors import BadRequest
from adapter.grammar.json_schema import encode_schema, lark_expression
from subnet.generation import Grammar
from subnet.panics import LibraryPanic, panics_as_errors

MAX_GRAMMAR_LENGTH = 16 * 1024
"""Maximum length of a regular expression or a grammar, in characters: converting GBNF takes three microseconds per
character."""

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_REGEX_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")
_SLASH_OR_LINE_END = re.compile(r"\\.|[/\n\r]", re.DOTALL)
_LARK_ESCAPES = {"/": r"\/", "\n": r"\n", "\r": r"\r"}


SchemaPolicy = Literal["strict", "enforced", "relaxed"]
"""What must be followed of a schema. strict: all, and it must comply with OpenAI's rules for strict schemas; enforced:
all; relaxed: what a grammar can follow.
"""


class SchemaLocation(msgspec.Struct, frozen=True):
    """Location of a schema, regular expression or grammar in a request, for error messages.

    `param` is the parameter, `label` the name in messages about schemas, and `code` the code of these errors.
    """

    param: str
    label: str
    code: str = "invalid_json_schema"

    def schema_error(self, path: Sequence[str | int], reason: str) -> BadRequest:
        """Return the error, as OpenAI words it, for the part of the schema at `path`."""
        context = f"In context=({', '.join(map(repr, path))}), " if path else ""
        return BadRequest(
            f"Invalid schema for {self.label}: {context[:512]}{reason}.",
            param=self.place(path),
            code=self.code,
        )

    def place(self, path: Sequence[str | int]) -> str:
        """Return the part of the schema at `path` as a parameter."""
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:64]}" for step in path)
        return (self.param + steps)[:512]


class OutputFormat(msgspec.Struct, frozen=True):
    """Output format as the client specified it at `location`.

    `value` depends on `kind`: a JSON schema or its text, a regular expression, a list of choices, a grammar in Lark or
    GBNF notation, or None for `json_object`.
    """

    kind: Literal["json_object", "json_schema", "regex", "choice", "grammar"]
    location: SchemaLocation
    value: Any = None
    policy: SchemaPolicy = "enforced"

    @property
    def is_response_format(self) -> bool:
        return self.location.param.partition(".")[0] == "response_format"


class CompiledFormat(msgspec.Struct, frozen=True):
    """Output format with its grammar, which is for an answer without anything else. `schema` is the JSON schema of the
    grammar, or None if it is not from one.
    """

    grammar: Grammar
    location: SchemaLocation
    schema: Mapping[str, Any] | None = None
    policy: SchemaPolicy = "enforced"

    @property
    def expression(self) -> str | None:
        """Lark expression for use in a larger grammar, or None if the format is a complete grammar itself."""
        if self.schema is not None:
            return lark_expression(self.schema)
        if self.grammar.kind == "regex":
            return f"/{_SLASH_OR_LINE_END.sub(_escape_for_lark, self.grammar.text)}/"
        return None


def compile_format(output_format: OutputFormat) -> CompiledFormat:
    """Return the format with its grammar.

    Raises BadRequest for an invalid regular expression or grammar, and for a schema that is not a JSON object. Does not
    check whether engines support the schema.
    """
    location, value = output_format.location, output_format.value
    match output_format.kind:
        case "json_object":
            return json_format(_ANY_OBJECT, location)
        case "json_schema":
            schema = _parse_schema(value, location)
            return json_format(schema, location, output_format.policy)
        case "choice":
            options = "|".join(_REGEX_SPECIAL.sub(r"\\\g<0>", option) for option in value)
            return CompiledFormat(_validate(Grammar("regex", f"({options})"), location), location)
        case "regex":
            return CompiledFormat(_validate(Grammar("regex", value), location), location)
        case "grammar":
            return CompiledFormat(_validate(Grammar("lark", _to_lark(value, location)), location), location)


def json_format(
    schema: Mapping[str, Any], location: SchemaLocation, policy: SchemaPolicy = "enforced"
) -> CompiledFormat:
    """Return the format of a JSON value that fits `schema`."""
    return CompiledFormat(Grammar("json_schema", encode_schema(schema)), location, schema, policy)


def _parse_schema(schema: Mapping[str, Any] | str, location: SchemaLocation) -> Mapping[str, Any]:
    if not isinstance(schema, str):
        return schema
    try:
        return msgspec.json.decode(schema, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise location.schema_error((), f"expected a JSON schema as an object or as a JSON string: {error}") from error


def _to_lark(text: str, location: SchemaLocation) -> str:
    try:
        return any_to_lark(text[: MAX_GRAMMAR_LENGTH + 1])
    except Exception as error:  # the converter raises plain Exception, and others if the text ends unexpectedly
        raise _invalid(location, str(error)) from error


def _validate(grammar: Grammar, location: SchemaLocation) -> Grammar:
    if len(grammar.text) > MAX_GRAMMAR_LENGTH:
        raise _invalid(location, f"expected at most {MAX_GRAMMAR_LENGTH} characters")
    convert = LLMatcher.grammar_from_regex if grammar.kind == "regex" else LLMatcher.grammar_from_lark
    try:
        with panics_as_errors:
            is_error, messages = LLMatcher.validate_grammar_with_warnings(convert(grammar.text))
    except LibraryPanic as error:
        raise _invalid(location, "it cannot be compiled") from error
    if is_error:
        raise _invalid(location, " ".join(messages[0].split()))
    return grammar


def _invalid(location: SchemaLocation, reason: str) -> BadRequest:
    return BadRequest(
        f"Invalid value for '{location.param}': {reason[:300]}.", param=location.param, code="invalid_value"
    )


def _escape_for_lark(match: re.Match[str]) -> str:
    return _LARK_ESCAPES.get(match[0], match[0])
