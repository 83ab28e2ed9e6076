"""Format of Kimi K3, made of elements `<|open|>name key="value"<|sep|>...<|close|>name<|sep|>`. The element `tools` has
a `call` for each call, with the attribute `tool`. In it is an `argument` for each argument, with its `key` and `type`,
or one `json` with all of them. Strings are plain text; other values are JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import msgspec

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.free_text import FreeText
from adapter.tools.grammar.lark import Lark, quoted
from adapter.tools.grammar.members import Member, PlainText, members
from adapter.tools.reading.json_call import is_name, named_call
from adapter.tools.reading.parts import Content
from adapter.tools.reading.source import Schema, Source, Tools
from adapter.tools.reading.text import Reading
from adapter.tools.reading.typed_values import ArgumentsWriter, allowed_types, emit_value

_OPEN, _CLOSE, _SEP = "<|open|>", "<|close|>", "<|sep|>"
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_ESCAPES = (("&", "&amp;"), ('"', "&quot;"))
_STRING = {"type": "string"}
_TYPES = "/number|boolean|null|array|object/"
_KEY = r"/[^\x{22}<>&]+/"
_QUOTE = '"'


def _close(element: str) -> str:
    return f"{_CLOSE}{element}{_SEP}"


class KimiK3(ToolFormat):
    """Format of Kimi K3. An incomplete call keeps the arguments so far, without the closing brace."""

    name = "kimi_k3"
    visible_marks = (_OPEN, _CLOSE, _SEP)
    start_marks = (_OPEN + "tools",)

    def parse(self, source: Source) -> Reading[None]:
        (mark,) = self.start_marks
        while (yield from source.emit_until(mark, make=Content, trim=True)):
            parsed = False
            if (yield from source.text(mark + _SEP)):
                while (yield from self._call(source)):
                    parsed = True
            if not parsed:
                source.reject(len(mark))
                continue
            yield from source.close(_close("tools"))
            yield from source.end_calls()

    def _call(self, source: Source) -> Reading[bool]:
        """Parse one call. Returns False, without emitting anything, if there is none."""
        name = (yield from self._element(source, "call")).get("tool", "")
        if not is_name(name):
            return False
        if (yield from self._element(source, "json")):
            if not (yield from named_call(source, name)):
                return False
            yield from source.text(_close("json"))
        else:
            source.begin_call(name)
            yield from self._arguments(source, ArgumentsWriter(source, name))
        yield from source.text(_close("call"))
        source.skip()
        return True

    def _arguments(self, source: Source, arguments: ArgumentsWriter) -> Reading[None]:
        end = _close("argument")
        while attributes := (yield from self._element(source, "argument")):
            arguments.write_key(attributes.get("key", ""))
            schema = _STRING if attributes.get("type") == "string" else None
            if not (yield from emit_value(source, schema, end)):
                return source.abandon_call()
            yield from source.text(end)
        if (yield from source.text(_close("call"))):
            arguments.close()
        else:
            source.abandon_call()
        return None

    def _element(self, source: Source, element: str) -> Reading[dict[str, str]]:
        """Read the start of an element, and return its attributes: none, without reading it, if it is another one."""
        at = source.at
        if (yield from source.literal(f"{_OPEN}{element} ")):
            text = yield from source.read_until(_SEP)
            if text is not None and (yield from source.literal(_SEP)):
                return {key: _unescaped(value) for key, value in _ATTRIBUTE.findall(text)}
        source.at = at
        return {}

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        call = lark.one_of(self._call_of(lark, name, schema) for name, schema in tools.items())
        calls = lark.repeated(call, "") if several else call
        return f"{lark.mark(f'{_OPEN}tools{_SEP}')} {calls} {lark.mark(_close('tools'))}"

    def _call_of(self, lark: Lark, name: str, schema: Schema | None) -> str:
        start, end = lark.mark(f'{_OPEN}call tool="{_escaped(name)}" index="'), lark.mark(f'"{_SEP}')
        described = members(name, schema)
        if described is None:
            arguments = f"{lark.one_of(self._argument(lark, _KEY, Member('', {}, True, ())))}*"
        else:
            arguments = " ".join(map(partial(self._described, lark), described))
        return f"{start} /[0-9]{{1,4}}/ {end} {arguments} {lark.mark(_close('call'))}"

    def _described(self, lark: Lark, member: Member) -> str:
        one = lark.one_of(self._argument(lark, quoted(_escaped(member.key)), member))
        return one if member.required else f"{one}?"

    def _argument(self, lark: Lark, key: str, member: Member) -> Iterator[str]:
        """Yield an expression for the argument as plain text and as JSON, if its schema allows it."""
        opening, end = f"{lark.mark(f'{_OPEN}argument key={_QUOTE}')} {key}", _close("argument")
        allowed = allowed_types(member.schema)
        if "string" in allowed or member.schema == {}:
            string = msgspec.structs.replace(member, schema={**member.schema, "type": "string"})
            start = f"{opening} {lark.mark(f'{_QUOTE} type={_QUOTE}string{_QUOTE}{_SEP}')}"
            yield f"{start} {PlainText(end, (end,)).value(lark, string)}"
        if allowed != {"string"}:
            start = f"{opening} {lark.mark(f'{_QUOTE} type={_QUOTE}')} {_TYPES} {lark.mark(f'{_QUOTE}{_SEP}')}"
            yield f"{start} {lark.json(member.schema)} {lark.mark(end)}"

    def free_text(self, lark: Lark, tools: Tools, calls: str) -> FreeText:
        return FreeText(lark, self.start_marks, calls, f"({lark.mark(_close('response'))})? {calls}")


def _escaped(text: str) -> str:
    for char, escape in _ESCAPES:
        text = text.replace(char, escape)
    return text


def _unescaped(text: str) -> str:
    for char, escape in reversed(_ESCAPES):
        text = text.replace(escape, char)
    return text
