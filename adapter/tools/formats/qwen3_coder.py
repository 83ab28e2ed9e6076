"""Format of Qwen3-Coder: `<tool_call>`, `<function=name>`, `<parameter=key>` value `</parameter>` for each argument,
`</function>` and `</tool_call>`, each on its own line. Strings are not quoted; other values are JSON.
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
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_LINE_END = "\n" + _PARAMETER_END


class Qwen3Coder(ToolFormat):
    """Format of Qwen3-Coder. The outer marks may be missing. An incomplete call keeps the arguments so far, without the
    closing brace.
    """

    name = "qwen3_coder"
    visible_marks = (_OPEN, _CLOSE)
    start_marks = (_OPEN, _FUNCTION)

    def parse(self, source: Source) -> Reading[None]:
        while (yield from source.emit_until(_OPEN, _FUNCTION, make=Content, trim=True)):
            opening = yield from source.literal(_OPEN)
            yield from source.space()
            if not (yield from source.literal(_FUNCTION)):
                source.reject(len(opening))
                continue
            name = ((yield from source.read_until(">", "\n")) or "").strip()
            if not is_name(name) or not (yield from source.literal(">")):
                source.reject(len(opening or _FUNCTION))
                continue
            source.begin_call(name)
            yield from self._arguments(source, ArgumentsWriter(source, name))

    def _arguments(self, source: Source, arguments: ArgumentsWriter) -> Reading[None]:
        yield from source.space()
        while (yield from source.literal(_PARAMETER)):
            key = yield from source.read_until(">")
            yield from source.literal(">")
            yield from source.literal("\n")
            if key is None:
                return source.abandon_call()
            if not (yield from emit_value(source, arguments.write_key(key.strip()), _LINE_END, _PARAMETER_END)):
                return source.abandon_call()
            yield from source.literal(_LINE_END, _PARAMETER_END)
            yield from source.space()
        if not (yield from source.literal(_FUNCTION_END)):
            return source.abandon_call()
        arguments.close()
        yield from source.space()
        yield from source.literal(_CLOSE)
        yield from source.space()
        return source.skip()

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.one_of(self._call(lark, name, members(name, schema)) for name, schema in tools.items())
        one = f"{lark.mark(_OPEN)} {LINE} {call} {LINE} {lark.mark(_CLOSE)}"
        return lark.repeated(one, LINE) if several else one

    def _call(self, lark: Lark, name: str, arguments: list[Member] | None) -> str:
        each = [self._any(lark)] if arguments is None else [self._argument(lark, member) for member in arguments]
        return " ".join([quoted(f"{_FUNCTION}{name}>\n"), *each, quoted(_FUNCTION_END)])

    def _any(self, lark: Lark) -> str:
        value = f"{lark.until(_LINE_END)} {LINE}"
        return f"({quoted(_PARAMETER)} /[^<>\\s]+/ {quoted('>' + chr(10))} {value})*"

    def _argument(self, lark: Lark, member: Member) -> str:
        value = plain_value(lark, member, "\n", _PARAMETER_END)
        one = lark.rule(f"{quoted(f'{_PARAMETER}{member.key}>' + chr(10))} {value} {LINE}")
        return one if member.required else f"{one}?"
