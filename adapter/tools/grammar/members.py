"""Grammars for arguments that are written one by one instead of as a JSON object."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adapter.tools.grammar.free_text import text_without
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

    @property
    def is_text(self) -> bool:
        """True if the value can only be a string."""
        return allowed_types(self.schema) == {"string"}


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


class PlainText:
    """Grammar of strings that are written as plain text before the mark `closing`. Parsers end them at any of `ends`
    too, and a line end before the closing mark is not part of them.
    """

    def __init__(self, closing: str, ends: Sequence[str]) -> None:
        self._closing = closing
        self._ends = cut_marks(ends)

    def any(self, lark: Lark) -> str:
        """Return an expression for any text and the closing mark."""
        return f"{text_without(lark, *self._ends)} {lark.mark(self._closing.lstrip())}"

    def value(self, lark: Lark, member: Member) -> str:
        """Return an expression for a string of `member` and the closing mark. Raises UnsupportedSchema."""
        for keyword in ("pattern", "format"):
            if keyword in member.schema:
                reason = f"'{keyword}' is not supported by this model's tool call format"
                raise UnsupportedSchema((*member.path, keyword), reason)
        if (named := allowed_values(member.schema)) is not None:
            return f"{self._one_of(lark, member, named)} {lark.mark(self._closing)}"
        min_length, max_length = member.schema.get("minLength", 0), member.schema.get("maxLength")
        if not min_length and max_length is None:
            return self.any(lark)
        return lark.bounded(self._closing, min_length, max_length)

    def _one_of(self, lark: Lark, member: Member, named: list[object]) -> str:
        texts = [value for value in named if isinstance(value, str)]
        if any(end in text for text in texts for end in self._ends):
            raise UnsupportedSchema(member.path, "a value contains a tag of this model's tool call format")
        return lark.one_of(map(quoted, texts))


def cut_marks(marks: Sequence[str]) -> tuple[str, ...]:
    """Cut `marks` to where the first character of one recurs, as `text_without` needs it. White space around them does
    not count.
    """
    bare = [mark.strip() for mark in marks]
    firsts = "".join({mark[0] for mark in bare})
    cut = (mark[0] + re.split(f"[{re.escape(firsts)}]", mark[1:])[0] for mark in bare)
    return tuple(dict.fromkeys(cut))


def separated(lark: Lark, items: Sequence[tuple[str, bool]], separator: str) -> str:
    """Return an expression for `items`, each an expression and whether it is required, in order, with separators."""
    first, later = lark.rule('""'), lark.rule('""')
    for item, required in reversed(items):
        skip_first, skip_later = ("", "") if required else (f" | {first}", f" | {later}")
        first, later = lark.rule(f"{item} {later}{skip_first}"), lark.rule(f"{separator} {item} {later}{skip_later}")
    return first
