"""Qwen3-Coder: `<tool_call>`, `<function=name>`, `<parameter=key>` value `</parameter>` for each argument,
`</function>`, `</tool_call>`, each on a line of its own. Strings have no quotes; other values are JSON."""

from __future__ import annotations

from adapter.tools.base import ToolFormat
from adapter.tools.grammar.lark import LINE, Lark, quoted
from adapter.tools.grammar.members import Member, members, plain_value
from adapter.tools.parts import Content
from adapter.tools.source import Source, Tools
from adapter.tools.text import Reading
from adapter.tools.values.json_call import is_name
from adapter.tools.values.typed_values import Arguments, pass_value

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_LINE_END = "\n" + _PARAMETER_END


class Qwen3Coder(ToolFormat):
    """The outer marks may be missing. A call that breaks off keeps the arguments so far, without the brace that would
    close them."""

    name = "qwen3_coder"
    visible = (_OPEN, _CLOSE)
    opening = (_OPEN, _FUNCTION)

    def read(self, source: Source) -> Reading[None]:
        while (yield from source.pass_until(_OPEN, _FUNCTION, give=Content, trim=True)):
            opening = yield from source.literal(_OPEN)
            yield from source.space()
            if not (yield from source.literal(_FUNCTION)):
                source.refuse(len(opening))
                continue
            name = ((yield from source.before(">", "\n")) or "").strip()
            if not is_name(name) or not (yield from source.literal(">")):
                source.refuse(len(opening or _FUNCTION))
                continue
            source.begin(name)
            yield from self._arguments(source, Arguments(source, name))

    def _arguments(self, source: Source, arguments: Arguments) -> Reading[None]:
        yield from source.space()
        while (yield from source.literal(_PARAMETER)):
            key = yield from source.before(">")
            yield from source.literal(">")
            yield from source.literal("\n")
            if key is None:
                return source.cut()
            if not (yield from pass_value(source, arguments.key(key.strip()), _LINE_END, _PARAMETER_END)):
                return source.cut()
            yield from source.literal(_LINE_END, _PARAMETER_END)
            yield from source.space()
        if not (yield from source.literal(_FUNCTION_END)):
            return source.cut()
        arguments.close()
        yield from source.space()
        yield from source.literal(_CLOSE)
        yield from source.space()
        return source.skip()

    def calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.either(self._call(lark, name, members(name, schema)) for name, schema in tools.items())
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
