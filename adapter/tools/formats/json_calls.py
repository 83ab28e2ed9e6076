"""Calls with their arguments in one JSON object, in the many styles that JsonStyle describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from adapter.tools.formats.base import ToolFormat
from adapter.tools.formats.json_style import JsonStyle
from adapter.tools.grammar.free_text import FreeText
from adapter.tools.grammar.lark import Lark, escape, quoted
from adapter.tools.reading.json_call import begins_call, call_start, json_call, keyed_call, named_call
from adapter.tools.reading.parts import Content, Skipped
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading

_NAME = re.compile(r"[^\s{}<>\[\]()\"',;]{0,256}")
_NUMBER = "/[0-9]{1,4}/"
_ID = "/[0-9A-Za-z_-]{1,40}/"
_KEYS = ("arguments", "parameters")
_QUOTE = '"'


class JsonCalls(ToolFormat):
    """Format of calls in `style`. Closing marks may be missing, and so may the marks around all calls where each call
    has marks. Where a list is written, single objects are parsed as well, and the reverse.

    If the style is bare, a call without a mark is parsed at the start of an answer, and an object also after text, but
    only if its tool is known and, after text, if it is complete: anything else may be JSON that the user requested.
    """

    def __init__(self, style: JsonStyle) -> None:
        self.style = style
        self.name = style.name
        self.visible_marks = style.marks
        self.start_marks = style.start_marks
        self.marks_text = bool(style.text_name)
        self._late = style.bare and style.shape == "object" and not style.brackets[0]
        self._named_too = style.shape == "named" or bool(style.after_name)
        between = style.between.strip()
        self._separators = (",", ";", *([between] if between and between[0] not in ",;" else []))
        self._key_names = (style.name_key, tuple(dict.fromkeys((style.arguments_key, *_KEYS))))

    def parse(self, source: Source) -> Reading[None]:
        if self.style.bare or self.style.maybe_bare:
            yield from source.space()
            yield from self._first_call(source)
            source.at = 0
        marks = (*self.start_marks, "{") if self._late else self.start_marks
        while marks and (yield from source.emit_until(*marks, make=Content, trim=True)):
            mark = yield from source.literal(*marks)
            source.at -= len(mark)
            parse = self._late_calls if mark == "{" else self._calls
            if (yield from parse(source)):
                yield from source.end_calls()
            else:
                source.reject(len(mark))

    def _calls(self, source: Source) -> Reading[bool]:
        """Parse the section or call that starts here."""
        opening, closing = yield from self._section(source)
        if self.marks_text and (yield from self._begin_text(source, self.style.call[0])):
            return True
        marked = self.style.call[0] and (opening, closing) not in self.style.other_sections
        at = source.at
        parsed = yield from self._marked_calls(source) if marked else self._bodies(source)
        if parsed:
            yield from source.close(closing)
        return parsed or (yield from self._empty(source, at, closing))

    def _empty(self, source: Source, at: int, closing: str) -> Reading[bool]:
        """Parse the end of a section that has no calls in it, from the position `at` on."""
        rejected, source.at = source.at, at
        yield from source.text("[")
        yield from source.text("]")
        if (yield from source.text(closing)):
            source.skip()
            return True
        source.at = rejected
        return False

    def _section(self, source: Source) -> Reading[tuple[str, str]]:
        """Read the opening of a section, if there is one, and return its texts."""
        for section in (self.style.section, *self.style.other_sections):
            if (yield from source.text(section[0])):
                return section
        return "", ""

    def _first_call(self, source: Source) -> Reading[None]:
        """Parse calls without a mark, or the name that announces text. If the text was cut off and is only the start
        of a call, it is skipped.
        """
        start = source.at
        if (yield from self._bodies(source, known_only=True)):
            yield from source.end_calls()
        elif source.starved and source.cut and self._is_cut(source):
            source.emit(Skipped.of)
        elif self.marks_text:
            source.at = start
            yield from self._begin_text(source)

    def _is_cut(self, source: Source) -> bool:
        """Return True if all text is the start of an object up to the name of a known tool, or to a part of it."""
        source.at = len(source.from_position(0))
        cut = re.fullmatch(
            rf'\s*\[?\s*{{\s*"{self.style.name_key}"\s*:\s*"([^"]*)"?.*', source.from_position(0), re.DOTALL
        )
        return cut is not None and any(name.startswith(cut[1]) for name in source.tools or ())

    def _begin_text(self, source: Source, mark: str = "") -> Reading[bool]:
        """Parse `mark` and the name that announces text, if they are here."""
        at = source.at
        if (yield from source.literal(mark + self.style.text_name + self.style.after_name)):
            source.skip()
            return True
        source.at = at
        return False

    def _marked_calls(self, source: Source) -> Reading[bool]:
        opening, closing = self.style.call
        parsed = False
        while (yield from source.text(opening)) and (yield from self._bodies(source, self.marks_text)):
            parsed = True
            yield from source.close(closing)
            yield from source.text(self.style.between)
        source.at = 0 if parsed else source.at
        return parsed

    def _late_calls(self, source: Source) -> Reading[bool]:
        at = source.at
        complete = yield from begins_call(source, self.style.name_key)
        source.at = at if complete else source.at
        return complete and (yield from self._bodies(source, known_only=True))

    def _bodies(self, source: Source, known_only: bool = False) -> Reading[bool]:
        """Parse one call or several objects, in a list or one after another."""
        bracket = yield from source.literal("[")
        yield from source.space()
        parsed = False
        while (yield from self._body(source, known_only)):
            parsed = True
            source.skip()
            yield from source.space()
            separator = yield from source.literal(*self._separators)
            yield from source.space()
            if separator:
                source.skip()
            if (yield from source.peek()) != "{":
                break
        if parsed:
            source.at = 0
            yield from source.close("]" if bracket else "")
        return parsed

    def _body(self, source: Source, known_only: bool) -> Reading[bool]:
        if (yield from source.peek()) != "{":
            return self._named_too and (yield from self._named(source, known_only))
        if self.style.shape == "keyed":
            return (yield from keyed_call(source))
        return (yield from json_call(source, *self._key_names, known_only=known_only))

    def _named(self, source: Source, known_only: bool) -> Reading[bool]:
        style = self.style
        if style.leading_id:
            yield from source.match(_NAME)
        yield from source.text(style.before_name)
        name = yield from source.match(_NAME)
        if style.number:
            name = re.sub(re.escape(style.number) + r"\d+$", "", name)
        yield from source.space()
        if (yield from source.text(style.id_mark)):
            yield from source.match(_NAME)
            yield from source.space()
        yield from source.text(style.after_name)
        known = not known_only or source.knows(name)
        if not known or not (yield from named_call(source, name)):
            return source.begin_cut_call(name)
        yield from source.text(style.after_arguments)
        return True

    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        style = self.style
        if style.bare:
            return self._bare_calls(lark, tools, several)
        opening, closing = (lark.mark(text) for text in style.call)
        call = lark.rule(f"{opening} {lark.one_of(self._options(lark, tools))} {closing}")
        calls = lark.repeated(call, lark.mark(style.between)) if several else call
        before, after = style.section[0] + style.brackets[0], style.brackets[1] + style.section[1]
        return f"{lark.mark(before)} {calls} {lark.mark(after)}"

    def _bare_calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        """Return an expression for calls of which the first has no mark. Its start is one terminal, so that text that
        starts like it is not matched as a call.
        """
        style = self.style
        calls = lark.one_of(self._options(lark, tools, style.brackets[0]))
        if several:
            calls += f" {lark.one_of(self._options(lark, tools, style.call[0] + style.between))}*"
        return f"{calls} {lark.mark(style.brackets[1])}"

    def _options(self, lark: Lark, tools: Tools, before: str = "") -> Iterator[str]:
        """Yield an expression for `before` and a call to each of `tools`, without marks around it."""
        style = self.style
        for name, schema in tools.items():
            arguments = lark.arguments(schema)
            if style.shape == "named":
                number = f"{quoted(style.number)} {_NUMBER}" if style.number else ""
                start = f"{lark.mark(before)} {_ID}" if style.leading_id else ""
                named = lark.mark(("" if style.leading_id else before) + style.before_name + name)
                after = lark.mark(style.after_name)
                yield f"{start} {named} {number} {after} {arguments} {lark.mark(style.after_arguments)}"
            else:
                yield f'{self._members(before, name)} {arguments} "}}"'

    def _members(self, before: str, name: str) -> str:
        """Return an expression for `before` and an object up to its arguments."""
        style, text = self.style, json.dumps(name)
        if style.shape == "keyed":
            return quoted(f"{before}{{{text}: ")
        members = f"{json.dumps(style.name_key)}: {text}, {json.dumps(style.arguments_key)}: "
        if not style.number:
            return quoted(f"{before}{{{members}")
        number = quoted(f"{before}{{{json.dumps(style.number)}: {_QUOTE}")
        return f"{number} {_NUMBER} {quoted(f'{_QUOTE}, {members}')}"

    def free_text(self, lark: Lark, tools: Tools, calls: str) -> FreeText:
        """Return the grammar of text. It does not exclude names with JSON escapes, which no model writes."""
        style = self.style
        names = "|".join(escape(json.dumps(name)) for name in tools)
        bare = ("{[", rf"(?s:.*){escape(json.dumps(style.name_key))}\s*:\s*({names})")
        if not style.bare:
            return FreeText(lark, self.start_marks, calls, bare=bare if style.maybe_bare else None)
        opening, closing = style.section
        marked = f"{lark.mark(opening)} {calls} {lark.mark(closing)}" if opening else ""
        either = lark.one_of([calls, marked]) if marked else calls
        if style.text_name:
            return FreeText(lark, self.start_marks, calls, marked, prefix=style.text_name + style.after_name)
        if not self._late:
            return FreeText(lark, self.start_marks, either, marked, bare)
        return FreeText(lark, self.start_marks, either, either, bare, ("{", call_start(style.name_key, names)))

    def content_grammar(self, lark: Lark, body: str) -> str:
        return f"{quoted(self.style.text_name + self.style.after_name)} {body}" if self.marks_text else body
