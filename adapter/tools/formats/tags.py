"""Formats whose arguments are written one by one between tags: `<function=f><parameter=a>1</parameter></function>`.

A format is a row of data, a TagSyntax. All share one parser and one grammar.
"""

from __future__ import annotations

from typing import Any

import msgspec

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.lark import Lark, UnsupportedSchema
from adapter.tools.grammar.members import Member, PlainText, cut_marks, members
from adapter.tools.reading.json_call import is_name, json_call
from adapter.tools.reading.parts import Content
from adapter.tools.reading.source import Schema, Source, Tools
from adapter.tools.reading.text import Reading
from adapter.tools.reading.typed_values import ArgumentsWriter, allowed_types, emit_value

_STRING = {"type": "string"}
# Other than those of plain strings, values of several types are read as JSON.
_JSON_STRING = {"type": ["string", "JSON string"]}


class TagSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """Tags of the format `name`, exactly as its models write them, with quotes and white space. Parsers ignore white
    space at the ends of a tag, and which quotes are used.

    `section` encloses all calls, and `call` each of them; both may be empty. `function` has what is before and after
    the name of a function, and what ends its arguments. `key` and `value` enclose the key and the value of an argument.
    A line end at both ends of a value is not part of it. `types` has tags that are written after a key instead of
    `key[1]`, and the type of the value that they announce: "string" for plain text, or "json". `verbatim` may enclose
    a string that contains tags. `separator` is between calls. `ignored` are tags without a meaning, and `tokens` are
    parts of tags that may be control tokens.
    """

    name: str
    section: tuple[str, str] = ("", "")
    call: tuple[str, str] = ("", "")
    function: tuple[str, str, str]
    key: tuple[str, str]
    value: tuple[str, str]
    types: tuple[tuple[str, str], ...] = ()
    verbatim: tuple[str, str] | None = None
    separator: str = ""
    ignored: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()


class _Marks:
    """Marks that the parser looks for."""

    def __init__(self, syntax: TagSyntax) -> None:
        self.section, self.section_end = map(str.strip, syntax.section)
        self.call, self.call_end = map(str.strip, syntax.call)
        self.function, self.name_end, self.function_end = map(_unquoted, syntax.function)
        self.key, self.value = _unquoted(syntax.key[0]), syntax.value[0].strip()
        self.key_ends = {_unquoted(mark): kind for mark, kind in (*syntax.types, (syntax.key[1], "")) if mark}
        self.starts = _distinct(self.section, self.call, self.function)
        self.name_stops = _stops(self.name_end, "\n", self.key, self.call_end, *self.starts)
        self.key_stops = _stops(*self.key_ends, *self.starts, self.key)
        self.ends = _distinct(self.function_end, self.call_end, self.section_end)
        self.line = "\n" if syntax.value[1].startswith("\n") else ""
        self.closing = _distinct(*(line + syntax.value[1].strip() for line in (self.line, "")))
        # The closing tag may be missing before what can only follow it.
        after = _distinct(self.key, (syntax.function[2] + syntax.call[1]).strip())
        # What may be within a value is only taken for them on a line of its own.
        plain = not any(token in syntax.key[0] for token in syntax.tokens)
        lines = ("\n", "") if syntax.value[1].endswith("\n") else ("",)
        self.value_ends = (*self.closing, *(line + mark for line in lines[: 1 if plain else 2] for mark in after))


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'")


def _distinct(*marks: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, marks)))


def _stops(*marks: str) -> tuple[str, ...]:
    """Return what to stop at to find one of `marks`: none has another within, which would be found before its end."""
    return _distinct(*(mark.split(">")[0] or mark for mark in marks))


class TagFormat(ToolFormat):
    """Format of a `syntax`. Outer marks may be missing, but then the function must be known, and so may closing tags.
    A call that ends early keeps the arguments so far, without the closing brace.
    """

    def __init__(self, syntax: TagSyntax) -> None:
        self.syntax = syntax
        self._marks = _Marks(syntax)
        self.name = syntax.name
        self.visible_marks = syntax.tokens
        self.start_marks = cut_marks(self._marks.starts)

    def parse(self, source: Source) -> Reading[None]:
        marks = self._marks
        while (yield from source.emit_until(*marks.starts, make=Content, trim=True)):
            mark = yield from source.literal(*marks.starts)
            if mark != marks.section:
                source.at -= len(mark)
            parsed, known_only = False, mark != marks.starts[0] and mark == marks.function
            while (yield from self._call(source, known_only)):
                parsed = True
            if not parsed:
                source.reject(len(mark))
                continue
            source.at = 0
            yield from self._skip(source, *self.syntax.ignored)
            yield from source.close(marks.section_end)
            yield from self._skip(source, *self.syntax.ignored)
            source.skip()

    def _skip(self, source: Source, *ignored: str) -> Reading[None]:
        """Skip white space and tags without a meaning."""
        known = _distinct(*ignored)
        yield from source.space()
        while known and (yield from source.literal(*known)):
            yield from source.space()

    def _call(self, source: Source, known_only: bool) -> Reading[bool]:
        """Parse one call. Returns False, without emitting anything, if there is none."""
        marks = self._marks
        yield from self._skip(source, *self.syntax.ignored)
        opened = bool(marks.call and (yield from source.literal(marks.call)))
        yield from self._skip(source, *self.syntax.ignored)
        if (yield from source.peek()) == "{" and not known_only:
            return (yield from self._json_call(source))
        if not ((yield from source.literal(marks.function)) if marks.function else opened):
            return False
        name = _unquoted((yield from source.read_until(*marks.name_stops)) or "")
        known = source.tools is None or name in source.tools
        if not _is_function(name) or (known_only and not known):
            return False
        if marks.name_end and not (yield from source.literal(marks.name_end)) and marks.function:
            return False
        if not marks.function and not known and not (yield from self._follows(source, marks.key, *marks.ends)):
            return False
        source.begin_call(name)
        arguments = ArgumentsWriter(source, name)
        if not (yield from self._arguments(source, arguments)):
            source.abandon_call(*marks.ends, *marks.starts, marks.key, *marks.key_ends, marks.value)
            return True
        arguments.close()
        yield from self._skip(source, *self.syntax.ignored)
        yield from source.close(marks.call_end)
        return True

    def _json_call(self, source: Source) -> Reading[bool]:
        """Parse a call that is written as JSON instead, as models do now and then."""
        if not (yield from json_call(source, "name", ("arguments", "parameters"))):
            return False
        yield from self._skip(source, self._marks.call_end, *self.syntax.ignored)
        source.skip()
        return True

    def _arguments(self, source: Source, arguments: ArgumentsWriter) -> Reading[bool]:
        marks = self._marks
        yield from source.space()
        while (yield from source.literal(marks.key)):
            if not (yield from self._argument(source, arguments)):
                return False
            yield from source.space()
        if (yield from source.literal(*marks.ends)):
            return True
        return (yield from self._follows(source, *marks.starts))

    def _follows(self, source: Source, *marks: str) -> Reading[bool]:
        """Return True if one of `marks` comes next, without reading it."""
        yield from source.space()
        mark = yield from source.literal(*marks)
        source.at -= len(mark)
        return bool(mark)

    def _argument(self, source: Source, arguments: ArgumentsWriter) -> Reading[bool]:
        marks = self._marks
        key = (yield from source.read_until(*marks.key_stops)) or ""
        key_end = yield from source.literal(*marks.key_ends)
        if marks.value:
            yield from source.space()
        if not is_name(key) or not key_end or not (not marks.value or (yield from source.literal(marks.value))):
            return False
        if marks.line:
            yield from source.literal(marks.line)
        schema = _typed(arguments.write_key(self._key(key)), marks.key_ends[key_end])
        verbatim = self.syntax.verbatim
        if verbatim and (yield from source.literal(verbatim[0])):
            source.skip()
            complete = yield from emit_value(source, _typed(schema, "string"), verbatim[1])
            yield from self._skip(source, verbatim[1])
        else:
            complete = yield from emit_value(source, schema, *marks.value_ends)
        yield from source.literal(*marks.closing)
        return complete

    def _key(self, written: str) -> str:
        return _unquoted(written) if self.syntax.key[0].endswith('"') else written.strip()

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        syntax = self.syntax
        call = lark.one_of(self._call_rule(lark, name, schema) for name, schema in tools.items())
        if several:
            call = lark.repeated(call, lark.mark(syntax.separator))
        return f"{lark.mark(syntax.section[0])} {call} {lark.mark(syntax.section[1])}"

    def _call_rule(self, lark: Lark, name: str, schema: Schema | None) -> str:
        syntax, described = self.syntax, members(name, schema)
        opening = lark.mark(f"{syntax.call[0]}{syntax.function[0]}{name}{syntax.function[1]}")
        each = [self._any(lark)] if described is None else [self._member(lark, member) for member in described]
        return " ".join([opening, *each, lark.mark(syntax.function[2] + syntax.call[1])])

    def _any(self, lark: Lark) -> str:
        """Return an expression for any arguments."""
        syntax = self.syntax
        values = [f"{lark.mark(self._key_end(True) + syntax.value[0])} {self._text().any(lark)}"]
        if syntax.types:
            key_end = lark.mark(self._key_end(False) + syntax.value[0])
            values.append(f"{key_end} {lark.json({})} {lark.mark(syntax.value[1])}")
        return f'({lark.mark(syntax.key[0])} /[^<>\\s"]+/ {lark.one_of(values)})*'

    def _member(self, lark: Lark, member: Member) -> str:
        syntax = self.syntax
        self._check_key(member)
        opening = lark.mark(syntax.key[0] + member.key + self._key_end(member.is_text) + syntax.value[0])
        if member.is_text:
            value = self._text().value(lark, member)
        else:
            value = f"{lark.json(member.schema)} {lark.mark(syntax.value[1])}"
        one = lark.rule(f"{opening} {value}")
        return one if member.required else f"{one}?"

    def _check_key(self, member: Member) -> None:
        if any(mark in member.key for mark in (*self._marks.key_stops, '"', "\n")):
            raise UnsupportedSchema(member.path, "the name contains a tag of this model's tool call format")

    def _key_end(self, is_text: bool) -> str:
        wanted = "string" if is_text else "json"
        return next((mark for mark, kind in self.syntax.types if kind == wanted), self.syntax.key[1])

    def _text(self) -> PlainText:
        verbatim = self.syntax.verbatim[:1] if self.syntax.verbatim else ()
        return PlainText(self.syntax.value[1], (*self._marks.value_ends, *verbatim))


def _is_function(name: str) -> bool:
    return is_name(name) and " " not in name and name[0] not in "{<["


def _typed(schema: Any, kind: str) -> Any:
    """Return the schema of a value whose tag announces its type, which the schema of the tool overrules."""
    allowed = allowed_types(schema)
    if kind == "string" and (not allowed or "string" in allowed):
        return _STRING
    return _JSON_STRING if kind == "json" and allowed == {"string"} else schema
