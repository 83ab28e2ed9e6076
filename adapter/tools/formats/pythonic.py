"""Calls as Python writes them: `[get_weather(city='Paris', days=3), get_time()]`; Llama 4 and LFM put marks around."""

from __future__ import annotations

import re

from adapter.tools.base import ToolFormat
from adapter.tools.grammar.free_text import Free
from adapter.tools.grammar.lark import Lark, pattern, quoted
from adapter.tools.grammar.members import members, separated
from adapter.tools.parts import Content
from adapter.tools.source import Schema, Source, Tools
from adapter.tools.text import Reading
from adapter.tools.values.json_call import is_name
from adapter.tools.values.python_literal import PythonValue, python_as_json
from adapter.tools.values.typed_values import Arguments

_MARKS = ("<|python_start|>", "<|tool_call_start|>")
_END_MARKS = ("<|python_end|>", "<|tool_call_end|>")
_NAME = re.compile(r"[\w.-]*")


class Pythonic(ToolFormat):
    """Without a mark, only an answer that begins with a call to a known tool is one. An argument is given when it is
    complete. A call that breaks off keeps the arguments so far, without the brace that would close them."""

    name = "pythonic"
    visible = _MARKS + _END_MARKS
    opening = _MARKS

    def read(self, source: Source) -> Reading[None]:
        yield from source.space()
        if (yield from source.peek()) == "[":
            yield from self._list(source, known_only=True)
        source.at = 0
        while (yield from source.pass_until(*_MARKS, give=Content, trim=True)):
            mark = yield from source.literal(*_MARKS)
            yield from source.space()
            if not (yield from self._list(source)):
                source.refuse(len(mark))

    def _list(self, source: Source, known_only: bool = False) -> Reading[bool]:
        found, more = False, (yield from source.literal("["))
        if not more:
            return False
        while more:
            yield from source.space()
            name = yield from source.match(_NAME)
            known = not known_only or source.tools is None or name in source.tools
            if not (is_name(name) and known and (yield from source.literal("("))):
                return found
            found = True
            source.begin(name)
            if not (yield from self._arguments(source, Arguments(source, name))):
                source.cut()
                return True
            yield from source.space()
            more = yield from source.literal(",")
        yield from source.literal("]")
        yield from source.space()
        yield from source.literal(*_END_MARKS)
        yield from source.space()
        source.skip()
        return found

    def _arguments(self, source: Source, arguments: Arguments) -> Reading[bool]:
        yield from source.space()
        while not (yield from source.literal(")")):
            key = yield from source.match(_NAME)
            yield from source.space()
            if not key or not (yield from source.literal("=")):
                return False
            yield from source.space()
            value = yield from source.scanned(PythonValue())
            if not value:
                return False
            arguments.key(key)
            source.write(python_as_json(value))
            yield from source.literal(",")
            yield from source.space()
        arguments.close()
        return True

    def calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        mark, end = self._marks(lark)
        bodies = {name: lark.rule(_body(lark, name, schema)) for name, schema in tools.items()}
        # The bracket and the name in one: text must not be taken for a call before it is clear that it is none.
        first = lark.either(f"{quoted(f'[{name}(')} {body}" for name, body in bodies.items())
        later = lark.either(f"{quoted(f', {name}(')} {body}" for name, body in bodies.items())
        return f'{mark} {first} {later}* "]" {end}' if several else f'{mark} {first} "]" {end}'

    def text(self, lark: Lark, tools: Tools, calls: str) -> Free:
        marked = bool(self._marks(lark)[0])
        names = "|".join(map(pattern, tools))
        return Free(lark, self.opening, calls, calls if marked else "", ("[", rf"\s*({names})\("))

    def _marks(self, lark: Lark) -> tuple[str, str]:
        """Those that the model has as control tokens; it writes no others."""
        pairs = zip(_MARKS, _END_MARKS, strict=True)
        return next(((lark.mark(mark), lark.mark(end)) for mark, end in pairs if lark.has(mark)), ("", ""))


def _body(lark: Lark, name: str, schema: Schema | None) -> str:
    described = members(name, schema)
    if described is None:
        one = lark.rule(f'/[\\w.-]+/ "=" {lark.json({})}')
        return f'({one} ({quoted(", ")} {one})*)? ")"'
    items = [(f"{quoted(member.key + '=')} {lark.json(member.schema)}", member.required) for member in described]
    return f'{separated(lark, items, quoted(", "))} ")"'
