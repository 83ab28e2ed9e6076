"""Llama 3: `{"name": ..., "parameters": {...}}`, with or without `<|python_tag|>`; several with `;` between them."""

from __future__ import annotations

import json

from adapter.tools.base import ToolFormat
from adapter.tools.grammar.free_text import Free
from adapter.tools.grammar.lark import Lark, pattern, quoted
from adapter.tools.parts import Content
from adapter.tools.source import Source, Tools
from adapter.tools.text import Reading
from adapter.tools.values.json_call import json_call

_TAG = "<|python_tag|>"


class Llama3Json(ToolFormat):
    """Without the tag, only an answer that begins with a call to a known tool is one: all else may be JSON that was
    asked for. What follows the tag and is no call is content, together with the tag."""

    name = "llama3_json"
    visible = (_TAG,)
    opening = (_TAG,)

    def read(self, source: Source) -> Reading[None]:
        yield from source.space()
        if (yield from source.peek()) == "{":
            yield from self._calls(source, known_only=True)
        source.at = 0
        while (yield from source.pass_until(_TAG, give=Content, trim=True)):
            yield from source.literal(_TAG)
            yield from source.space()
            if not (yield from self._calls(source)):
                source.refuse(len(_TAG))

    def _calls(self, source: Source, known_only: bool = False) -> Reading[bool]:
        found = False
        while (yield from json_call(source, known_only)):
            found = True
            yield from source.space()
            yield from source.literal(";", ",")
            yield from source.space()
            source.skip()
            if (yield from source.peek()) != "{":
                break
        return found

    def calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.object(tools, "parameters")
        return lark.repeated(call, quoted("; ")) if several else call

    def text(self, lark: Lark, tools: Tools, calls: str) -> Free:
        """A name that is spelled with escapes is not seen; no model writes that."""
        marked = f"{lark.mark(_TAG)} {calls}"
        names = "|".join(pattern(json.dumps(name)) for name in tools)
        return Free(lark, self.opening, lark.either([calls, marked]), marked, ("{", rf'(?s:.*)"name"\s*:\s*({names})'))
