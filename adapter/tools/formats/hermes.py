"""Hermes and Qwen: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, and again for each call. Also for models
whose template knows no tools."""

from __future__ import annotations

from adapter.tools.base import ToolFormat
from adapter.tools.grammar.lark import LINE, Lark
from adapter.tools.parts import Content
from adapter.tools.source import Source, Tools
from adapter.tools.text import Reading
from adapter.tools.values.json_call import json_call

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class Hermes(ToolFormat):
    """A call that lacks the closing mark is a call."""

    name = "hermes"
    visible = (_OPEN, _CLOSE)
    opening = (_OPEN,)

    def read(self, source: Source) -> Reading[None]:
        while (yield from source.pass_until(_OPEN, give=Content, trim=True)):
            yield from source.literal(_OPEN)
            yield from source.space()
            if not (yield from json_call(source)):
                source.refuse(len(_OPEN))
                continue
            yield from source.space()
            yield from source.literal(_CLOSE)
            yield from source.space()
            source.skip()

    def calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.rule(f"{lark.mark(_OPEN)} {LINE} {lark.object(tools, 'arguments')}")
        one = f"{call} {LINE} {lark.mark(_CLOSE)}"
        return lark.repeated(one, LINE) if several else one
