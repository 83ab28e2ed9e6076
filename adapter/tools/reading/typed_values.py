"""Conversion of unquoted values to JSON, by the schema of the argument."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from adapter.tools.reading.json_value import JsonValue, encode_string
from adapter.tools.reading.parts import ToolArguments
from adapter.tools.reading.python_literal import literal_to_json
from adapter.tools.reading.source import Source
from adapter.tools.reading.text import Reading

_WORDS = {"true": "true", "false": "false", "none": "null", "null": "null"}
_BITS = {"1": "true", "0": "false"}
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_LITERAL = re.compile(r"[\[{(]|[+-]?[0-9]")
_MAX_DEPTH = 8


def allowed_types(schema: object) -> frozenset[str]:
    """Return the JSON types that `schema` allows, or none if it does not restrict them."""
    return _allowed(schema, _MAX_DEPTH)


def _allowed(schema: object, depth: int) -> frozenset[str]:
    own = _types(schema)
    if own or not isinstance(schema, Mapping) or not depth:
        return own
    options = schema.get("anyOf") or schema.get("oneOf")
    members = [_allowed(option, depth - 1) for option in options] if isinstance(options, list) else []
    return frozenset().union(*members) if all(members) else frozenset()


def _types(schema: object) -> frozenset[str]:
    if not isinstance(schema, Mapping):
        return frozenset()
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset([declared])
    if isinstance(declared, list):
        return frozenset(map(str, declared))
    return frozenset(map(_kind, allowed_values(schema) or ()))


def allowed_values(schema: Mapping[str, object]) -> list[object] | None:
    """Return the values that `schema` lists (`const` or `enum`), or None."""
    named = [schema["const"]] if "const" in schema else schema.get("enum")
    return named if isinstance(named, list) else None


def alternative(schema: object, kind: str) -> Mapping[str, object]:
    """Return the first of a schema's alternatives (`anyOf` or `oneOf`) that allows the type `kind`, or the schema."""
    if not isinstance(schema, Mapping):
        return {}
    options = schema.get("anyOf") or schema.get("oneOf")
    found = (option for option in options if kind in allowed_types(option)) if isinstance(options, list) else iter(())
    return next(found, schema)


def property_schema(schema: Mapping[str, object], key: str) -> object:
    """Return the schema of a member of an object, or None."""
    properties, others = schema.get("properties"), schema.get("additionalProperties")
    return properties.get(key, others) if isinstance(properties, Mapping) else others


def text_to_json(text: str, schema: object) -> str:
    """Convert `text` to JSON: to a value of a type that `schema` allows, if it can be read as JSON or as a Python
    literal of one. Without such a value it is a string if `schema` allows strings or if it is not JSON.
    """
    allowed, stripped = allowed_types(schema), text.strip()
    if isinstance(schema, Mapping) and text in (allowed_values(schema) or ()):
        return encode_string(text)
    exact = _checked(stripped)
    for value in (exact, _lenient(stripped, allowed)):
        if value is not None and (not allowed or _fits(value, allowed)):
            return value
    return encode_string(text) if exact is None or "string" in allowed else exact


def _checked(text: str) -> str | None:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return text


def _fits(value: str, allowed: frozenset[str]) -> bool:
    kind = _kind(msgspec.json.decode(value))
    return kind in allowed or (kind == "integer" and "number" in allowed)


def _lenient(text: str, allowed: frozenset[str]) -> str | None:
    """Read what is not JSON but can only be meant as one of the `allowed` types."""
    if (word := _WORDS.get(text.lower())) is not None:
        return word
    if allowed == {"boolean"} and text in _BITS:
        return _BITS[text]
    if "integer" in allowed and (whole := _WHOLE.fullmatch(text)):
        return whole[1]
    # Without a type, `07` may be a code.
    literal = literal_to_json(text) if _LITERAL.match(text) else None
    return literal if allowed or text[:1] in ("[", "{", "(") else None


def emit_value(source: Source, schema: object, *ends: str) -> Reading[bool]:
    """Emit the value before one of `ends` as JSON: strings as they arrive, other values once complete. Returns False if
    the text ends before.
    """
    if allowed_types(schema) == {"string"}:
        return (yield from emit_string(source, *ends))
    text = yield from _before(source, ends)
    if text is not None:
        source.write_arguments(text_to_json(text, schema))
    return text is not None


def emit_string(source: Source, *ends: str) -> Reading[bool]:
    """Emit the text before one of `ends` as a JSON string, as it arrives. Returns False if the text ends before."""
    source.write_arguments('"')

    def escaped(text: str, size: int) -> ToolArguments:
        return source.arguments_part(encode_string(text)[1:-1], size)

    if complete := (yield from source.emit_until(*ends, make=escaped)):
        source.write_arguments('"')
    return complete


def _before(source: Source, ends: Sequence[str]) -> Reading[str | None]:
    """Read the text before one of `ends`, ignoring the first few that are within a JSON value."""
    first = text = yield from source.read_until(*ends)
    position = source.at
    for _ in range(8):
        if text is None or text.lstrip()[:1] not in ("{", "[", '"') or _complete(text.lstrip()):
            return text
        end = yield from source.literal(*ends)
        more = yield from source.read_until(*ends)
        if more is None:
            break
        text += end + more
    source.at = position
    return first


def _complete(text: str) -> bool:
    end, complete = JsonValue().scan(text, 0)
    return complete and not text[end:].strip()


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null")


class ArgumentsWriter:
    """Writes arguments of the last call, one after another, as a JSON object."""

    def __init__(self, source: Source, name: str) -> None:
        self._schema = (source.tools or {}).get(name) or {}
        self._source = source
        self._opening = "{"

    def write_key(self, key: str) -> object:
        """Write a key, to be followed by its value. Returns the schema of the value, or None."""
        self._source.write_arguments(f"{self._opening}{encode_string(key)}: ")
        self._opening = ", "
        return property_schema(self._schema, key)

    def close(self) -> None:
        self._source.write_arguments("{}" if self._opening == "{" else "}")
