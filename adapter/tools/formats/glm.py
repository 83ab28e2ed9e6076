"""Format of GLM 4.5: `<tool_call>name`, then `<arg_key>key</arg_key>` and `<arg_value>value</arg_value>` for each
argument, then `</tool_call>`. Strings are not quoted; other values are JSON.
"""

from __future__ import annotations

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.lark import LINE, Lark, quoted
from adapter.tools.grammar.members import Member, members, plain_value
from adapter.tools.reading.json_call import is_name
from adapter.tools.reading.parts import Content
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading
from adapter.tools.reading.typed_values import ArgumentsWriter, emit_value

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_KEY, _KEY_END = "<arg_key>", "</arg_key>"
_VALUE, _VALUE_END = "<arg_value>", "</arg_value>"


class Glm(ToolFormat):
    """Format of GLM. An incomplete call keeps the arguments so far, without the closing brace."""

    name = "glm"
    visible_marks = (_OPEN, _CLOSE, _KEY, _KEY_END, _VALUE, _VALUE_END)
    start_marks = (_OPEN,)

    def parse(self, source: Source) -> Reading[None]:
        while (yield from source.emit_until(_OPEN, make=Content, trim=True)):
            yield from source.literal(_OPEN)
            name = ((yield from source.read_until("\n", _KEY, _CLOSE)) or "").strip()
            if not is_name(name) or name.startswith("{"):
                source.reject(len(_OPEN))
                continue
            source.begin_call(name)
            yield from self._arguments(source, ArgumentsWriter(source, name))

    def _arguments(self, source: Source, arguments: ArgumentsWriter) -> Reading[None]:
        yield from source.space()
        while (yield from source.literal(_KEY)):
            key = yield from source.read_until(_KEY_END)
            yield from source.literal(_KEY_END)
            yield from source.space()
            if key is None or not (yield from source.literal(_VALUE)):
                return source.abandon_call()
            if not (yield from emit_value(source, arguments.write_key(key.strip()), _VALUE_END)):
                return source.abandon_call()
            yield from source.literal(_VALUE_END)
            yield from source.space()
        if not (yield from source.literal(_CLOSE)):
            return source.abandon_call()
        arguments.close()
        yield from source.space()
        return source.skip()

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.one_of(self._call(lark, name, members(name, schema)) for name, schema in tools.items())
        return lark.repeated(call, LINE) if several else call

    def _call(self, lark: Lark, name: str, arguments: list[Member] | None) -> str:
        each = [self._any(lark)] if arguments is None else [self._argument(lark, member) for member in arguments]
        return " ".join([lark.mark(_OPEN), quoted(name + "\n"), *each, lark.mark(_CLOSE)])

    def _any(self, lark: Lark) -> str:
        key = f"{lark.mark(_KEY)} {lark.bounded(_KEY_END, 1, None)} {LINE}"
        return f"({key} {lark.mark(_VALUE)} {lark.until(_VALUE_END)} {LINE})*"

    def _argument(self, lark: Lark, member: Member) -> str:
        key = f"{lark.mark(_KEY)} {quoted(member.key)} {lark.mark(_KEY_END)} {LINE}"
        one = lark.rule(f"{key} {lark.mark(_VALUE)} {plain_value(lark, member, '', _VALUE_END)} {LINE}")
        return one if member.required else f"{one}?"
