"""Formats of Mistral models: `[TOOL_CALLS]` and a JSON list of calls, or, since the v11 tokenizers,
`[TOOL_CALLS]name[ARGS]{...}` for each call.
"""

from __future__ import annotations

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.lark import Lark, quoted
from adapter.tools.reading.json_call import json_call, named_call
from adapter.tools.reading.parts import Content
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading

_CALLS, _ID, _ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


class Mistral(ToolFormat):
    """Parses both formats; its grammar is that of the list."""

    name = "mistral"
    visible_marks = (_CALLS, _ID, _ARGS)
    start_marks = (_CALLS,)

    def parse(self, source: Source) -> Reading[None]:
        while (yield from source.emit_until(_CALLS, make=Content, trim=True)):
            yield from source.literal(_CALLS)
            yield from source.space()
            next_char = yield from source.peek()
            if next_char == "[":
                parsed = yield from self._list(source)
            elif next_char == "{":
                parsed = yield from json_call(source)
            else:
                parsed = yield from self._named(source)
            if not parsed:
                source.reject(len(_CALLS))

    def _list(self, source: Source) -> Reading[bool]:
        yield from source.literal("[")
        parsed, more = False, ","
        while more:
            yield from source.space()
            if not (yield from json_call(source)):
                return parsed
            parsed = True
            yield from source.space()
            more = yield from source.literal(",")
        yield from source.literal("]")
        yield from source.space()
        source.skip()
        return True

    def _named(self, source: Source) -> Reading[bool]:
        name = ((yield from source.read_until(_ARGS, _ID, _CALLS, "{")) or "").strip()
        if (yield from source.literal(_ID)):
            yield from source.read_until(_ARGS, _CALLS)
        yield from source.literal(_ARGS)
        yield from source.space()
        if not (yield from named_call(source, name)):
            return False
        source.skip()
        return True

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.object(tools, "arguments")
        calls = lark.repeated(call, quoted(", ")) if several else call
        return f'{lark.mark(_CALLS)} "[" {calls} "]"'


class MistralArgs(Mistral):
    """Parses both formats; its grammar is that of the newer one."""

    name = "mistral_args"

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.one_of(
            f"{lark.mark(_CALLS)} {quoted(name)} {lark.mark(_ARGS)} {lark.arguments(schema)}"
            for name, schema in tools.items()
        )
        return lark.repeated(call, "") if several else call
