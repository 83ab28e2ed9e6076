"""Format of Llama 3: `{"name": ..., "parameters": {...}}`, optionally after `<|python_tag|>`, separated by `;`."""

from __future__ import annotations

import json

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.free_text import FreeText
from adapter.tools.grammar.lark import Lark, escape, quoted
from adapter.tools.reading.json_call import json_call
from adapter.tools.reading.parts import Content
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading

_TAG = "<|python_tag|>"


class Llama3Json(ToolFormat):
    """Format of Llama 3. Without the tag a call is only parsed at the start of an answer, and only if its tool is
    known: anything else may be JSON that the user requested. If no call follows the tag, both tag and text are content.
    """

    name = "llama3_json"
    visible_marks = (_TAG,)
    start_marks = (_TAG,)

    def parse(self, source: Source) -> Reading[None]:
        yield from source.space()
        if (yield from source.peek()) == "{":
            yield from self._calls(source, known_only=True)
        source.at = 0
        while (yield from source.emit_until(_TAG, make=Content, trim=True)):
            yield from source.literal(_TAG)
            yield from source.space()
            if not (yield from self._calls(source)):
                source.reject(len(_TAG))

    def _calls(self, source: Source, known_only: bool = False) -> Reading[bool]:
        parsed = False
        while (yield from json_call(source, known_only)):
            parsed = True
            yield from source.space()
            yield from source.literal(";", ",")
            yield from source.space()
            source.skip()
            if (yield from source.peek()) != "{":
                break
        return parsed

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.object(tools, "parameters")
        return lark.repeated(call, quoted("; ")) if several else call

    def free_text(self, lark: Lark, tools: Tools, calls: str) -> FreeText:
        """Return the grammar of text. It does not exclude names with JSON escapes, which no model writes."""
        marked = f"{lark.mark(_TAG)} {calls}"
        names = "|".join(escape(json.dumps(name)) for name in tools)
        return FreeText(
            lark, self.start_marks, lark.one_of([calls, marked]), marked, ("{", rf'(?s:.*)"name"\s*:\s*({names})')
        )
