"""Calls in Python syntax: `[get_weather(city='Paris', days=3), get_time()]`, between marks for Llama 4 and LFM."""

from __future__ import annotations

import re

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

_MARKS = ("<|python_start|>", "<|tool_call_start|>")
_END_MARKS = ("<|python_end|>", "<|tool_call_end|>")
_NAME = re.compile(r"[\w.-]*")


class Pythonic(ToolFormat):
    """Format of calls in Python syntax. Without a mark calls are only parsed at the start of an answer, and only if
    their tool is known. Arguments are emitted once complete. An incomplete call keeps the arguments so far, without the
    closing brace.
    """

    name = "pythonic"
    visible_marks = _MARKS + _END_MARKS
    start_marks = _MARKS

    def parse(self, source: Source) -> Reading[None]:
        yield from source.space()
        if (yield from source.peek()) == "[":
            yield from self._list(source, known_only=True)
        source.at = 0
        while (yield from source.emit_until(*_MARKS, make=Content, trim=True)):
            mark = yield from source.literal(*_MARKS)
            yield from source.space()
            if not (yield from self._list(source)):
                source.reject(len(mark))

    def _list(self, source: Source, known_only: bool = False) -> Reading[bool]:
        parsed, more = False, (yield from source.literal("["))
        if not more:
            return False
        while more:
            yield from source.space()
            name = yield from source.match(_NAME)
            known = not known_only or source.tools is None or name in source.tools
            if not (is_name(name) and known and (yield from source.literal("("))):
                return parsed
            parsed = True
            source.begin_call(name)
            if not (yield from self._arguments(source, ArgumentsWriter(source, name))):
                source.abandon_call()
                return True
            yield from source.space()
            more = yield from source.literal(",")
        yield from source.literal("]")
        yield from source.space()
        yield from source.literal(*_END_MARKS)
        yield from source.space()
        source.skip()
        return parsed

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
        mark, end = self._marks(lark)
        bodies = {name: lark.rule(_body(lark, name, schema)) for name, schema in tools.items()}
        # Bracket and name are one terminal, so that text that starts with a bracket is not matched as a call.
        first = lark.one_of(f"{quoted(f'[{name}(')} {body}" for name, body in bodies.items())
        later = lark.one_of(f"{quoted(f', {name}(')} {body}" for name, body in bodies.items())
        return f'{mark} {first} {later}* "]" {end}' if several else f'{mark} {first} "]" {end}'

    def free_text(self, lark: Lark, tools: Tools, calls: str) -> FreeText:
        marked = bool(self._marks(lark)[0])
        names = "|".join(map(escape, tools))
        return FreeText(lark, self.start_marks, calls, calls if marked else "", ("[", rf"\s*({names})\("))

    def _marks(self, lark: Lark) -> tuple[str, str]:
        """Return the marks that are control tokens of the model, as it writes no others."""
        pairs = zip(_MARKS, _END_MARKS, strict=True)
        return next(((lark.mark(mark), lark.mark(end)) for mark, end in pairs if lark.has(mark)), ("", ""))


def _body(lark: Lark, name: str, schema: Schema | None) -> str:
    described = members(name, schema)
    if described is None:
        one = lark.rule(f'/[\\w.-]+/ "=" {lark.json({})}')
        return f'({one} ({quoted(", ")} {one})*)? ")"'
    items = [(f"{quoted(member.key + '=')} {lark.json(member.schema)}", member.required) for member in described]
    return f'{separated(lark, items, quoted(", "))} ")"'
