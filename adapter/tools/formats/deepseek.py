"""Format of DeepSeek models. Marks enclose all calls, and each call. Within them are the name, a mark and the arguments
(V3.1), or `function`, a mark, the name and the arguments in a code block (V3, R1).
"""

from __future__ import annotations

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.lark import LINE, Lark, quoted
from adapter.tools.reading.json_call import named_call
from adapter.tools.reading.parts import Content
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading


def _mark(name: str) -> str:
    """Return a mark, with fullwidth bars at both ends and block characters instead of spaces."""
    return "<\uff5c" + name.replace(" ", "\u2581") + "\uff5c>"


_CALLS, _CALLS_END = _mark("tool calls begin"), _mark("tool calls end")
_CALL, _CALL_END, _SEP = _mark("tool call begin"), _mark("tool call end"), _mark("tool sep")
_BLOCK, _BLOCK_END = "```json", "```"


class DeepSeek(ToolFormat):
    """Parses both formats; its grammar is that of V3.1. The marks around all calls may be missing."""

    name = "deepseek"
    visible_marks = (_CALLS, _CALLS_END, _CALL, _CALL_END, _SEP)
    start_marks = (_CALLS, _CALL)

    def parse(self, source: Source) -> Reading[None]:
        while (yield from source.emit_until(_CALLS, _CALL, make=Content, trim=True)):
            mark = yield from source.literal(_CALLS, _CALL)
            if mark == _CALL:
                source.at -= len(mark)
            yield from source.space()
            parsed = False
            while (yield from source.literal(_CALL)) and (yield from self._call(source)):
                parsed = True
            if not parsed:
                source.reject(len(mark))
                continue
            source.at = 0
            yield from source.literal(_CALLS_END)
            yield from source.space()
            source.skip()

    def _call(self, source: Source) -> Reading[bool]:
        name = ((yield from source.read_until(_SEP, _CALL_END)) or "").strip()
        yield from source.literal(_SEP)
        yield from source.space()
        if name == "function" and (yield from source.peek()) != "{":
            name = ((yield from source.read_until("\n", _CALL_END)) or "").strip()
            yield from source.space()
            yield from source.literal(_BLOCK)
            yield from source.space()
        if not (yield from named_call(source, name)):
            return False
        yield from source.literal(_BLOCK_END)
        yield from source.space()
        yield from source.literal(_CALL_END)
        yield from source.space()
        source.skip()
        return True

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        one = f"{lark.mark(_CALL)} {self._body(lark, tools)} {lark.mark(_CALL_END)}"
        calls = lark.repeated(one, self._between) if several else one
        return f"{lark.mark(_CALLS)} {calls} {lark.mark(_CALLS_END)}"

    _between = ""

    def _body(self, lark: Lark, tools: Tools) -> str:
        return lark.one_of(
            f"{quoted(name)} {lark.mark(_SEP)} {lark.arguments(schema)}" for name, schema in tools.items()
        )


class DeepSeekV3(DeepSeek):
    """Parses both formats; its grammar is that of V3 and R1."""

    name = "deepseek_v3"
    _between = LINE

    def _body(self, lark: Lark, tools: Tools) -> str:
        call = lark.one_of(
            f"{quoted(f'{name}{chr(10)}{_BLOCK}{chr(10)}')} {lark.arguments(schema)}" for name, schema in tools.items()
        )
        return f'"function" {lark.mark(_SEP)} {call} {quoted(chr(10) + _BLOCK_END)}'
