"""Calls in Python syntax: `[get_weather(city='Paris', days=3), get_time()]`, between marks for some models."""

from __future__ import annotations

import re

import msgspec

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.free_text import FreeText
from adapter.tools.grammar.lark import Lark, escape, quoted
from adapter.tools.grammar.members import members, separated
from adapter.tools.reading.json_call import is_name
from adapter.tools.reading.parts import Content
from adapter.tools.reading.python_literal import PythonValue, python_to_json
from adapter.tools.reading.source import Schema, Source, Tools
from adapter.tools.reading.text import Reading
from adapter.tools.reading.typed_values import ArgumentsWriter

_NAME = re.compile(r"[\w.-]*")


class PythonStyle(msgspec.Struct, frozen=True, kw_only=True):
    """How a family of models writes calls in Python syntax. `name` is used in settings.

    `sections` are the marks around all calls, one of which the model writes; within them, `brackets` enclose the calls,
    and `between` separates them. `bare`: without a mark, calls are parsed at the start of an answer. The model writes
    marks only if they are control tokens.
    """

    name: str
    sections: tuple[tuple[str, str], ...]
    brackets: tuple[str, str] = ("", "")
    between: str
    bare: bool = False


PYTHON_STYLES = (
    PythonStyle(
        name="pythonic",
        sections=(("<|python_start|>", "<|python_end|>"), ("<|tool_call_start|>", "<|tool_call_end|>")),
        brackets=("[", "]"),
        between=", ",
        bare=True,
    ),
    PythonStyle(name="olmo3", sections=(("<function_calls>", "</function_calls>"),), between="\n"),
)


class Pythonic(ToolFormat):
    """Format of calls in Python syntax. Without a mark their tool must be known. Arguments are emitted once complete.
    An incomplete call keeps the arguments so far, without the closing brace.
    """

    def __init__(self, style: PythonStyle) -> None:
        self.style = style
        self.name = style.name
        self.start_marks = tuple(opening.strip() for opening, _ in style.sections)
        self._end_marks = tuple(closing.strip() for _, closing in style.sections)
        self.visible_marks = (*self.start_marks, *self._end_marks)

    def parse(self, source: Source) -> Reading[None]:
        if self.style.bare:
            yield from source.space()
            if (yield from self._list(source, known_only=True)):
                yield from source.end_calls()
            source.at = 0
        while (yield from source.emit_until(*self.start_marks, make=Content, trim=True)):
            mark = yield from source.literal(*self.start_marks)
            yield from source.space()
            if (yield from self._list(source)):
                yield from source.end_calls()
            else:
                source.reject(len(mark))

    def _list(self, source: Source, known_only: bool = False) -> Reading[bool]:
        opening, closing = self.style.brackets
        if opening and not (yield from source.literal(opening)):
            return False
        parsed = False
        while (yield from self._call(source, known_only)):
            parsed = True
            source.skip()
            yield from source.space()
            if (yield from source.literal(",")):
                yield from source.space()
                source.skip()
        if parsed:
            source.at = 0
            yield from source.close(closing)
            for mark in self._end_marks:
                yield from source.close(mark)
        return parsed

    def _call(self, source: Source, known_only: bool) -> Reading[bool]:
        """Parse one call. Returns False, without emitting anything, if there is none."""
        yield from source.space()
        name = yield from source.match(_NAME)
        known = not known_only or source.knows(name)
        if not (is_name(name) and known and (yield from source.literal("("))):
            return False
        source.begin_call(name)
        if not (yield from self._arguments(source, ArgumentsWriter(source, name))):
            source.abandon_call()
        return True

    def _arguments(self, source: Source, arguments: ArgumentsWriter) -> Reading[bool]:
        yield from source.space()
        while not (yield from source.literal(")")):
            key = yield from source.match(_NAME)
            yield from source.space()
            if not key or not (yield from source.literal("=")):
                return False
            yield from source.space()
            value = yield from source.scan(PythonValue())
            if not value:
                return False
            arguments.write_key(key)
            source.write_arguments(python_to_json(value))
            yield from source.literal(",")
            yield from source.space()
        arguments.close()
        return True

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        (opening, closing), style = self._section(lark), self.style
        bodies = {name: lark.rule(_body(lark, name, schema)) for name, schema in tools.items()}
        # Bracket and name are one terminal, so that text that starts with a bracket is not matched as a call.
        first = lark.one_of(f"{quoted(f'{style.brackets[0]}{name}(')} {body}" for name, body in bodies.items())
        later = lark.one_of(f"{quoted(f'{style.between}{name}(')} {body}" for name, body in bodies.items())
        calls = f"{first} {later}*" if several else first
        return f"{opening} {calls} {lark.mark(style.brackets[1])} {closing}"

    def free_text(self, lark: Lark, tools: Tools, calls: str) -> FreeText:
        if not self.style.bare:
            return super().free_text(lark, tools, calls)
        names = "|".join(map(escape, tools))
        marked = bool(self._section(lark)[0])
        bare = (self.style.brackets[0], rf"\s*({names})\(")
        return FreeText(lark, self.start_marks, calls, calls if marked else "", bare)

    def _section(self, lark: Lark) -> tuple[str, str]:
        """Return expressions for the marks around calls: those that are control tokens, as a model writes no others.
        Without any, they are the first, or none if calls may be bare.
        """
        default = ("", "") if self.style.bare else self.style.sections[0]
        opening, closing = next((section for section in self.style.sections if lark.has(section[0].strip())), default)
        return lark.mark(opening), lark.mark(closing)


def _body(lark: Lark, name: str, schema: Schema | None) -> str:
    described = members(name, schema)
    if described is None:
        one = lark.rule(f'/[\\w.-]+/ "=" {lark.json({})}')
        return f'({one} ({quoted(", ")} {one})*)? ")"'
    items = [(f"{quoted(member.key + '=')} {lark.json(member.schema)}", member.required) for member in described]
    return f'{separated(lark, items, quoted(", "))} ")"'
