"""Format of Hermes and Qwen models: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` for each call. Also used
for models whose chat template does not support tools.
"""

from __future__ import annotations

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.lark import LINE, Lark
from adapter.tools.reading.json_call import json_call
from adapter.tools.reading.parts import Content
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class Hermes(ToolFormat):
    """Format of Hermes. The closing mark of a call may be missing."""

    name = "hermes"
    visible_marks = (_OPEN, _CLOSE)
    start_marks = (_OPEN,)

    def parse(self, source: Source) -> Reading[None]:
        while (yield from source.emit_until(_OPEN, make=Content, trim=True)):
            yield from source.literal(_OPEN)
            yield from source.space()
            if not (yield from json_call(source)):
                source.reject(len(_OPEN))
                continue
            yield from source.space()
            yield from source.literal(_CLOSE)
            yield from source.space()
            source.skip()

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.rule(f"{lark.mark(_OPEN)} {LINE} {lark.object(tools, 'arguments')}")
        one = f"{call} {LINE} {lark.mark(_CLOSE)}"
        return lark.repeated(one, LINE) if several else one
