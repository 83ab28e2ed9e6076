"""Mistral: `[TOOL_CALLS]` and a JSON list of calls, or (since the v11 tokenizers) `[TOOL_CALLS]name[ARGS]{...}`, and
again for each call."""

from __future__ import annotations

from adapter.tools.base import ToolFormat
from adapter.tools.grammar.lark import Lark, quoted
from adapter.tools.parts import Content
from adapter.tools.source import Source, Tools
from adapter.tools.text import Reading
from adapter.tools.values.json_call import json_call, named_call

_CALLS, _ID, _ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


class Mistral(ToolFormat):
    """Reads both, writes the list."""

    name = "mistral"
    visible = (_CALLS, _ID, _ARGS)
    opening = (_CALLS,)

    def read(self, source: Source) -> Reading[None]:
        while (yield from source.pass_until(_CALLS, give=Content, trim=True)):
            yield from source.literal(_CALLS)
            yield from source.space()
            next_one = yield from source.peek()
            if next_one == "[":
                found = yield from self._list(source)
            elif next_one == "{":
                found = yield from json_call(source)
            else:
                found = yield from self._named(source)
            if not found:
                source.refuse(len(_CALLS))

    def _list(self, source: Source) -> Reading[bool]:
        yield from source.literal("[")
        found, more = False, ","
        while more:
            yield from source.space()
            if not (yield from json_call(source)):
                return found
            found = True
            yield from source.space()
            more = yield from source.literal(",")
        yield from source.literal("]")
        yield from source.space()
        source.skip()
        return True

    def _named(self, source: Source) -> Reading[bool]:
        name = ((yield from source.before(_ARGS, _ID, _CALLS, "{")) or "").strip()
        if (yield from source.literal(_ID)):
            yield from source.before(_ARGS, _CALLS)
        yield from source.literal(_ARGS)
        yield from source.space()
        if not (yield from named_call(source, name)):
            return False
        source.skip()
        return True

    def calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.object(tools, "arguments")
        calls = lark.repeated(call, quoted(", ")) if several else call
        return f'{lark.mark(_CALLS)} "[" {calls} "]"'


class MistralArgs(Mistral):
    """Reads both, writes the newer."""

    name = "mistral_args"

    def calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.either(
            f"{lark.mark(_CALLS)} {quoted(name)} {lark.mark(_ARGS)} {lark.arguments(schema)}"
            for name, schema in tools.items()
        )
        return lark.repeated(call, "") if several else call
