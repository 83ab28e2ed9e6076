"""Format of MiniMax M3: an argument is an element named after its key, objects and arrays have elements within, and a
mark is in front of every tag: `]<]minimax[>[<city>Paris]<]minimax[>[</city>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from adapter.tools.formats.tags import TagFormat
from adapter.tools.grammar.lark import Lark, escape, quoted
from adapter.tools.grammar.members import Member, PlainText
from adapter.tools.reading.json_call import is_name
from adapter.tools.reading.json_value import encode_string
from adapter.tools.reading.source import Source
from adapter.tools.reading.text import Reading
from adapter.tools.reading.typed_values import (
    ArgumentsWriter,
    allowed_types,
    alternative,
    emit_value,
    property_schema,
    text_to_json,
)

_MAX_DEPTH = 32
_ITEM = "item"
# Key of text between the members of an object, as vLLM calls it.
_BETWEEN = "$text"
_NAME = r"[\w.-]+"


class _Element(msgspec.Struct):
    """Element of an argument: its text with all tags, that between the elements within, and those with their names."""

    text: str = ""
    between: str = ""
    inner: list[tuple[str, _Element]] = []


class Elements(TagFormat):
    """Format whose syntax has a token in front of every tag, and tags named after keys. Strings are emitted as they
    arrive, other values once complete. Objects and arrays may also be written as JSON, as the grammar does.
    """

    def _arguments(self, source: Source, arguments: ArgumentsWriter) -> Reading[bool]:
        marks = self._marks
        while True:
            yield from source.space()
            if (yield from source.literal(*marks.ends)):
                return True
            if (yield from self._follows(source, *marks.starts)):
                return True
            name = yield from self._opening(source)
            if not name or not (yield from self._value(source, arguments.write_key(name), name)):
                return False

    def _opening(self, source: Source) -> Reading[str]:
        """Read an opening tag, and return its name, or "" if there is none."""
        if not (yield from source.literal(self._marks.key)):
            return ""
        name = (yield from source.read_until(*self._marks.key_stops)) or ""
        valid = is_name(name) and name[0] != "/" and (yield from source.literal(">"))
        return name if valid else ""

    def _value(self, source: Source, schema: Any, name: str) -> Reading[bool]:
        is_text = allowed_types(schema) == {"string"}
        if is_text or (yield from source.peek()) in ("{", "[", '"'):
            # Text may contain other tags.
            ends = (self._closing(name), *self._marks.ends) if is_text else (self.syntax.value[1],)
            complete = yield from emit_value(source, schema, *ends)
            yield from self._close(source)
            return complete
        element = yield from self._element(source, _MAX_DEPTH)
        if element is not None:
            source.write_arguments(_to_json(element, schema))
        return element is not None

    def _element(self, source: Source, depth: int) -> Reading[_Element | None]:
        """Read an element after its opening tag. Returns None if it is not closed or nested too deeply."""
        element = _Element(inner=[])
        while depth:
            text = yield from source.read_until(self.syntax.tokens[0])
            if text is None:
                return None
            element.text += text
            element.between += text
            if (yield from self._close(source)):
                return element
            inner = yield from self._opening(source)
            child = (yield from self._element(source, depth - 1)) if inner else None
            if child is None:
                return None
            element.inner.append((inner, child))
            element.text += f"{self._marks.key}{inner}>{child.text}{self._closing(inner)}"
        return None

    def _close(self, source: Source) -> Reading[bool]:
        """Read a closing tag of any name. It may be missing at the end of a call, which is not read."""
        if (yield from self._follows(source, *self._marks.ends)):
            return True
        if not (yield from source.literal(self.syntax.value[1])):
            return False
        yield from source.read_until(*self._marks.key_stops)
        return bool((yield from source.literal(">")))

    def _closing(self, name: str) -> str:
        return f"{self.syntax.value[1]}{name}>"

    def _any(self, lark: Lark) -> str:
        """Return an expression for any arguments. A grammar cannot repeat their names in the closing tags."""
        ends = "|".join(escape(end.removeprefix(self.syntax.value[1])[:-1]) for end in self._marks.ends)
        closing = f'"</" {lark.terminal(f"/{_NAME}/ & ~/{ends}/")} ">"'
        return f'({lark.mark(self.syntax.key[0])} /{_NAME}/ ">" {lark.until(self.syntax.tokens[0])} {closing})*'

    def _member(self, lark: Lark, member: Member) -> str:
        self._check_key(member)
        opening = lark.mark(f"{self.syntax.key[0]}{member.key}>")
        closing = self._closing(member.key)
        if member.is_text:
            token = self.syntax.tokens[0]
            value = _TokenText(token, closing.removeprefix(token)).value(lark, member)
        else:
            value = f"{lark.json(member.schema)} {lark.mark(closing)}"
        one = lark.rule(f"{opening} {value}")
        return one if member.required else f"{one}?"


class _TokenText(PlainText):
    """Grammar of strings before a closing tag that starts with a token."""

    def __init__(self, token: str, closing: str) -> None:
        super().__init__(token + closing, (token,))
        self._token = token

    def any(self, lark: Lark) -> str:
        return f"{lark.until(self._token)} {quoted(self._closing.removeprefix(self._token))}"


def _to_json(element: _Element, schema: Any) -> str:
    allowed = allowed_types(schema)
    if not element.inner:
        if not element.text.strip() and "string" not in allowed and allowed & {"array", "object"}:
            return "[]" if "array" in allowed else "{}"
        return text_to_json(element.text, schema)
    if "string" in allowed and not allowed & {"array", "object"}:
        return encode_string(element.text)
    if "array" in allowed or ("object" not in allowed and all(name == _ITEM for name, _ in element.inner)):
        items = alternative(schema, "array").get("items")
        return f"[{', '.join(_to_json(item, items) for _, item in element.inner)}]"
    return _object(element, alternative(schema, "object"))


def _object(element: _Element, schema: Mapping[str, Any]) -> str:
    values: dict[str, list[str]] = {}
    for name, inner in element.inner:
        values.setdefault(name, []).append(_to_json(inner, property_schema(schema, name)))
    if element.between.strip():
        values.setdefault(_BETWEEN, []).append(encode_string(element.between))
    pairs = (
        f"{encode_string(name)}: {found[0] if len(found) == 1 else '[' + ', '.join(found) + ']'}"
        for name, found in values.items()
    )
    return f"{{{', '.join(pairs)}}}"
