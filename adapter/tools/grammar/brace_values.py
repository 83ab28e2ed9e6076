"""Grammars of values in Gemma's notation: `{key:value,...}` with bare keys, and a mark on both sides of strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapter.tools.grammar.lark import Lark, UnsupportedSchema, quoted
from adapter.tools.grammar.members import Member, PlainText, members, separated
from adapter.tools.reading.json_value import encode_string
from adapter.tools.reading.source import Schema
from adapter.tools.reading.typed_values import allowed_types

_NOTES = frozenset({"title", "description", "default", "examples", "$defs", "definitions"})
_OBJECT = _NOTES | {"type", "properties", "required", "additionalProperties"}
_ARRAY = _NOTES | {"type", "items"}


class BraceValues:
    """Grammar of values with the mark `quote` around strings. Parsers read JSON too, so values with a schema that only
    a JSON grammar can enforce are JSON.
    """

    def __init__(self, lark: Lark, quote: str) -> None:
        self._lark = lark
        self._quote = lark.mark(quote)
        self._text = PlainText(quote, (quote,))
        self._any = ""

    def arguments(self, name: str, schema: Schema | None) -> str:
        """Return an expression for the arguments of a function, in braces. Raises UnsupportedSchema."""
        described = members(name, schema)
        return self._any_object() if described is None else self._object(described)

    def _object(self, described: Sequence[Member]) -> str:
        # Chat templates sort keys.
        ordered = sorted(described, key=lambda member: member.key)
        items = [(self._member(member), member.required) for member in ordered]
        return f'"{{" {separated(self._lark, items, quoted(","))} "}}"'

    def _member(self, member: Member) -> str:
        key = member.key if member.key.isidentifier() else encode_string(member.key)
        return f"{quoted(key + ':')} {self._value(member)}"

    def _value(self, member: Member) -> str:
        if member.is_text:
            return f"{self._quote} {self._text.value(self._lark, member)}"
        try:
            return self._container(member) or self._lark.json(member.schema)
        except UnsupportedSchema:
            return self._lark.json(member.schema)

    def _container(self, member: Member) -> str:
        schema, allowed = member.schema, allowed_types(member.schema)
        if not isinstance(schema, Mapping):
            return ""
        if allowed == {"object"} and "properties" in schema and schema.keys() <= _OBJECT:
            return self._object(members(".".join(member.path), schema) or [])
        if allowed == {"array"} and isinstance(schema.get("items"), Mapping) and schema.keys() <= _ARRAY:
            items = self._lark.rule(self._value(_item(member, schema)))
            return f'"[" ({items} ("," {items})*)? "]"'
        return ""

    def _any_object(self) -> str:
        if not self._any:
            lark = self._lark
            string = f"{self._quote} {self._text.any(lark)}"
            self._any = lark.recursive(
                lambda value: [
                    string,
                    lark.json({"type": ["number", "boolean", "null"]}),
                    f'"[" ({value} ("," {value})*)? "]"',
                    self._braces(value),
                ]
            )
        return self._braces(self._any)

    def _braces(self, value: str) -> str:
        pair = f'/[\\w.-]+/ ":" {value}'
        return f'"{{" ({pair} ("," {pair})*)? "}}"'


def _item(member: Member, schema: Mapping[str, Any]) -> Member:
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return Member("items", {**shared, **schema["items"]}, True, (*member.path, "items"))
