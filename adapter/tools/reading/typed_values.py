"""Conversion of unquoted values to JSON, by the schema of the argument."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from adapter.tools.reading.json_value import JsonValue
from adapter.tools.reading.parts import ToolArguments
from adapter.tools.reading.source import Source
from adapter.tools.reading.text import Reading

_WORDS = {"True": "true", "False": "false", "None": "null"}
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def encode_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def allowed_types(schema: object) -> frozenset[str]:
    """Return the JSON types that `schema` allows, or none if it does not restrict them."""
    own = _types(schema)
    if own or not isinstance(schema, Mapping):
        return own
    options = schema.get("anyOf") or schema.get("oneOf")
    members = [_types(option) for option in options] if isinstance(options, list) else []
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


def text_to_json(text: str, schema: object) -> str:
    """Convert `text` to JSON: JSON of a type that `schema` allows (or True, False, None) as it is, all else as a
    string.
    """
    allowed = allowed_types(schema)
    value = _WORDS.get(text.strip(), text.strip())
    try:
        kind = _kind(msgspec.json.decode(value))
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return encode_string(text)
    fits = kind in allowed or (kind == "integer" and "number" in allowed)
    return encode_string(text) if "string" in allowed and not fits else value


def emit_value(source: Source, schema: object, *ends: str) -> Reading[bool]:
    """Emit the value before one of `ends` as JSON: strings as they arrive, other values once complete. Returns False if
    the text ends before.
    """
    if allowed_types(schema) != {"string"}:
        text = yield from _before(source, ends)
        if text is not None:
            source.write_arguments(text_to_json(text, schema))
        return text is not None
    source.write_arguments('"')

    def escaped(text: str, size: int) -> ToolArguments:
        return source.arguments_part(encode_string(text)[1:-1], size)

    if complete := (yield from source.emit_until(*ends, make=escaped)):
        source.write_arguments('"')
    return complete


def _before(source: Source, ends: tuple[str, ...]) -> Reading[str | None]:
    """Read the text before one of `ends`, ignoring the first few that are within a JSON value."""
    first = text = yield from source.read_until(*ends)
    position = source.at
    for _ in range(8):
        if text is None or text[:1] not in ("{", "[", '"') or _complete(text):
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
        schema = (source.tools or {}).get(name) or {}
        properties = schema.get("properties")
        self._properties = properties if isinstance(properties, Mapping) else {}
        self._source = source
        self._opening = "{"

    def write_key(self, key: str) -> object:
        """Write a key, to be followed by its value. Returns the schema of the value, or None."""
        self._source.write_arguments(f"{self._opening}{encode_string(key)}: ")
        self._opening = ", "
        return self._properties.get(key)

    def close(self) -> None:
        self._source.write_arguments("{}" if self._opening == "{" else "}")
