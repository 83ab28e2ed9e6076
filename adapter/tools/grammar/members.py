"""Grammars for arguments that are written one by one instead of as a JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adapter.tools.grammar.lark import Lark, UnsupportedSchema, as_object, quoted
from adapter.tools.reading.source import Schema
from adapter.tools.reading.typed_values import allowed_types, allowed_values

_SHARED = ("$defs", "definitions")


class Member(msgspec.Struct, frozen=True):
    """Argument of a function. `path` leads to it: function name, then key."""

    key: str
    schema: Any
    required: bool
    path: tuple[str, ...]


def members(name: str, schema: Schema | None) -> list[Member] | None:
    """Return the arguments in the order of the schema, or None if it does not restrict them. Only `properties` and
    `required` of the top level are used. Raises UnsupportedSchema.
    """
    own = as_object(schema)
    if not own.keys() & {"properties", "required", "additionalProperties"}:
        return None
    properties, required = own.get("properties") or {}, own.get("required") or []
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        raise UnsupportedSchema((name,), "expected 'properties' to be an object and 'required' to be an array")
    if unknown := [key for key in required if key not in properties]:
        raise UnsupportedSchema((name, "required"), f"'{unknown[0]}' is listed in 'required' but not in 'properties'")
    shared = {key: own[key] for key in _SHARED if key in own}
    return [
        Member(key, {**shared, **member} if isinstance(member, Mapping) else member, key in required, (name, key))
        for key, member in properties.items()
    ]


def plain_value(lark: Lark, member: Member, line: str, end: str) -> str:
    """Return an expression for a value followed by `line` and the mark `end`: strings are plain text, other values
    JSON. Raises UnsupportedSchema.
    """
    if allowed_types(member.schema) != {"string"}:
        return f"{lark.json(member.schema)} {quoted(line)} {lark.mark(end)}"
    for keyword in ("pattern", "format"):
        if keyword in member.schema:
            reason = f"'{keyword}' is not supported by this model's tool call format"
            raise UnsupportedSchema((*member.path, keyword), reason)
    if (named := allowed_values(member.schema)) is not None:
        texts = [value for value in named if isinstance(value, str)]
        return f"{lark.one_of(map(quoted, texts))} {quoted(line)} {lark.mark(end)}"
    min_length, max_length = member.schema.get("minLength", 0), member.schema.get("maxLength")
    return lark.bounded(line + end, min_length, max_length) if min_length or max_length is not None else lark.until(end)


def separated(lark: Lark, items: Sequence[tuple[str, bool]], separator: str) -> str:
    """Return an expression for `items`, each an expression and whether it is required, in order, with separators."""
    first, later = lark.rule('""'), lark.rule('""')
    for item, required in reversed(items):
        skip_first, skip_later = ("", "") if required else (f" | {first}", f" | {later}")
        first, later = lark.rule(f"{item} {later}{skip_first}"), lark.rule(f"{separator} {item} {later}{skip_later}")
    return first
