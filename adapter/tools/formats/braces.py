"""Formats of Gemma: `call:name{key:value,...}` between two marks, with bare keys and a mark on both sides of strings:
`<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.brace_values import BraceValues
from adapter.tools.grammar.lark import Lark, quoted
from adapter.tools.reading.json_call import decode_string, is_name
from adapter.tools.reading.json_value import encode_string
from adapter.tools.reading.parts import Content
from adapter.tools.reading.source import Schema, Source, Tools
from adapter.tools.reading.text import Reading
from adapter.tools.reading.typed_values import allowed_types, alternative, emit_string, property_schema, text_to_json

_MAX_DEPTH = 32


class BraceSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """Marks of the format `name`: `call` encloses a call, and `quote` a string. `tokens` may be control tokens."""

    name: str
    call: tuple[str, str]
    quote: str
    tokens: tuple[str, ...] = ()


class BraceFormat(ToolFormat):
    """Format of a `syntax`. Values may also be JSON. A call that ends early
    keeps the arguments so far, without the closing brace.
    """

    def __init__(self, syntax: BraceSyntax) -> None:
        self.syntax = syntax
        self.name = syntax.name
        self.visible_marks = syntax.tokens
        self.start_marks = (syntax.call[0],)

    def parse(self, source: Source) -> Reading[None]:
        opening, closing = self.syntax.call
        while (yield from source.emit_until(opening, make=Content, trim=True)):
            yield from source.literal(opening)
            name = yield from self._name(source)
            if not name:
                source.reject(len(opening))
                continue
            source.begin_call(name)
            if not (yield from self._members(source, (source.tools or {}).get(name), _MAX_DEPTH)):
                source.abandon_call(closing, self.syntax.quote)
                continue
            yield from source.close(closing)
            yield from source.space()
            source.skip()

    def _name(self, source: Source) -> Reading[str]:
        """Read up to the arguments, and return the name of the function, or "" if there is no call."""
        yield from source.space()
        yield from source.literal("call:", ":")
        name = ((yield from source.read_until("{", "\n", *self.syntax.call)) or "").strip()
        return name if is_name(name) and " " not in name and (yield from source.literal("{")) else ""

    def _members(self, source: Source, schema: Any, depth: int) -> Reading[bool]:
        """Emit the members of an object after its brace. Its closing brace may be missing at the end of the call."""
        described, opening = alternative(schema, "object"), "{"
        while depth:
            yield from self._space(source)
            if (yield from self._closes(source, "}")):
                source.write_arguments("{}" if opening == "{" else "}")
                return True
            key = yield from self._key(source)
            if key is None:
                return False
            source.write_arguments(f"{opening}{encode_string(key)}: ")
            if not (yield from self._value(source, property_schema(described, key), depth - 1)):
                return False
            opening = ", "
        return False

    def _items(self, source: Source, schema: Any, depth: int) -> Reading[bool]:
        items, opening = alternative(schema, "array").get("items"), "["
        while depth:
            yield from self._space(source)
            if (yield from self._closes(source, "]")):
                source.write_arguments("[]" if opening == "[" else "]")
                return True
            source.write_arguments(opening)
            if not (yield from self._value(source, items, depth - 1)):
                return False
            opening = ", "
        return False

    def _space(self, source: Source) -> Reading[None]:
        """Skip white space and a comma."""
        yield from source.space()
        if (yield from source.literal(",")):
            yield from source.space()

    def _closes(self, source: Source, bracket: str) -> Reading[bool]:
        mark = yield from source.literal(bracket, self.syntax.call[1])
        if mark != bracket:
            source.at -= len(mark)
        return bool(mark)

    def _key(self, source: Source) -> Reading[str | None]:
        if (yield from source.literal(self.syntax.quote)):
            key = yield from source.read_until(self.syntax.quote)
            yield from source.literal(self.syntax.quote)
        elif (yield from source.peek()) == '"':
            key = decode_string((yield from source.value()))
        else:
            key = yield from source.read_until(":", ",", "{", "}", "\n", *self.syntax.call)
            key = None if key is None else key.strip()
        yield from source.space()
        return key if key and len(key) <= 256 and (yield from source.literal(":")) else None

    def _value(self, source: Source, schema: Any, depth: int) -> Reading[bool]:
        yield from source.space()
        if (yield from source.literal(self.syntax.quote)):
            return (yield from self._string(source, schema))
        char = yield from source.peek()
        if char in ("{", "["):
            yield from source.literal(char)
            return (yield from (self._members if char == "{" else self._items)(source, schema, depth))
        if char == '"':
            text = yield from source.value()
            if decode_string(text) is None:
                return False
        else:
            text = yield from source.read_until(",", "}", "]", *self.syntax.call)
        if text is None or not text.strip():
            return False
        source.write_arguments(text if char == '"' else text_to_json(text.strip(), schema))
        return True

    def _string(self, source: Source, schema: Any) -> Reading[bool]:
        quote, allowed = self.syntax.quote, allowed_types(schema)
        source.skip()
        if not allowed or "string" in allowed:
            complete = yield from emit_string(source, quote)
        else:
            text = yield from source.read_until(quote)
            complete = text is not None
            if text is not None:
                source.write_arguments(text_to_json(text, schema))
        yield from source.literal(quote)
        return complete

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        values = BraceValues(lark, self.syntax.quote)
        call = lark.one_of(self._call_rule(lark, values, name, schema) for name, schema in tools.items())
        return lark.repeated(call, "") if several else call

    def _call_rule(self, lark: Lark, values: BraceValues, name: str, schema: Schema | None) -> str:
        opening, closing = map(lark.mark, self.syntax.call)
        return f"{opening} {quoted(f'call:{name}')} {values.arguments(name, schema)} {closing}"


BRACE_SYNTAXES = (
    BraceSyntax(
        name="gemma4",
        call=("<|tool_call>", "<tool_call|>"),
        quote='<|"|>',
        tokens=("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>"),
    ),
    BraceSyntax(
        name="functiongemma",
        call=("<start_function_call>", "<end_function_call>"),
        quote="<escape>",
        tokens=("<start_function_call>", "<end_function_call>", "<escape>"),
    ),
)
