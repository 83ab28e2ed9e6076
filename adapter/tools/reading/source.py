"""Text of a choice, and the parts that a format makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from adapter.tools.reading.json_value import JsonValue
from adapter.tools.reading.parts import Content, Part, Reasoning, Skipped, ToolArguments, ToolCallBegin, merge
from adapter.tools.reading.text import Reading, TextReader, compiled_marks

MakePart: TypeAlias = Callable[[str, int], Part]
Schema: TypeAlias = Mapping[str, Any]
Tools: TypeAlias = Mapping[str, Schema | None]
"""JSON schema of the arguments of each function, or None for one that takes none, by its name."""

_QUOTES = ("`", "'", '"')
# Characters of a mark at the end of a text that was cut off. Fewer may be anything, such as a less-than sign.
_PARTIAL_MARK = 5
# Characters that may be read again after calls that were none, so that no text takes more than linear time.
_REREADABLE = 1 << 18


class Source(TextReader):
    """Text reader that also collects parts.

    Emitting turns everything read since the last part into a part, so that sizes add up whatever a format does. Text
    that was read but not emitted can be read again by setting `at` to 0. `tools` are the functions that may be called,
    None if unknown. Marks in `ignored` are left out of content, unless they are in quotes, and so is `answer_end` with
    the white space before it. `reasoning` are the opening tag, the label that may follow it, and the closing tag of
    reasoning that may be within content.
    """

    def __init__(self, tools: Tools | None = None) -> None:
        super().__init__()
        self.tools = tools
        self.ignored: tuple[str, ...] = ()
        self.answer_end = ""
        self.reasoning: tuple[str, str, str] | None = None
        self._parts: list[Part] = []
        self._calls = 0
        self._before = ""
        self._has_content = False
        self._rereadable = _REREADABLE

    def pop_parts(self) -> list[Part]:
        """Return the parts emitted since the last call."""
        parts, self._parts = self._parts, []
        return parts

    def knows(self, name: str) -> bool:
        """Return True if `name` is that of a function that may be called, or if these are unknown."""
        return self.tools is None or name in self.tools

    @property
    def previous(self) -> str:
        """The character before the read position, or "" at the start of the text."""
        return self._text[self.at - 1] if self.at else self._before

    def emit(self, make: MakePart) -> None:
        self._put(make(self._text[: self.at], self.at))

    def skip(self) -> None:
        self._put(Skipped(self.at))

    def reread(self, size: int) -> None:
        """Count characters that are read more than once."""
        self._rereadable -= size

    def may_reread(self) -> bool:
        """Return False if so much was read more than once that only time in proportion to the text remains."""
        return self._rereadable > 0

    def reject(self, size: int) -> None:
        """Reject a call: a mark of `size` characters, with white space before it, becomes content, and the rest is read
        again. If the text has ended, or very much was read again before, all of it becomes content. If the text was cut
        off, a mark at its end with what may be the start of a call is skipped.
        """
        mark = self._text[: len(self._text) - len(self._text.lstrip()) + size]
        self.reread(self.at)
        if self.starved:
            self.at = len(self._text)
            self.emit(Skipped.of if self.cut and not mark.strip().isalnum() else Content)
        else:
            self.at = len(mark) if self.may_reread() else self.at
            self.emit(Content)

    def abandon_call(self, *marks: str) -> None:
        """Abandon a started call that became invalid. If the cause is the end of the text, maybe within one of `marks`,
        the rest is skipped.
        """
        if self.starved and (self.at == len(self._text) or self._ends_within(*marks)):
            self.at = len(self._text)
            self.skip()

    def _ends_within(self, *marks: str) -> bool:
        """Return True if the text has ended with the start of one of `marks`."""
        rest = self._text[self.at :].strip()
        return self.starved and bool(rest) and any(mark.strip().startswith(rest) for mark in marks)

    def close(self, text: str) -> Reading[None]:
        """Skip what was read, and the mark `text` with white space before it, or its start at the end of the text."""
        if not (yield from self.text(text, space_after=False)) and self._ends_within(text):
            self.at = len(self._text)
        self.skip()

    def end_calls(self) -> Reading[None]:
        """Skip white space after calls, unless it is between two texts."""
        yield from self.space()
        if self._has_content and (yield from self.peek()):
            self.at = 0
        self.skip()

    def begin_cut_call(self, name: str) -> bool:
        """Begin a call to `name` that was cut off before its arguments. Returns False if it was not."""
        if not (self.starved and self.cut and name and self.tools and name in self.tools):
            return False
        self.at = len(self._text)
        self.begin_call(name)
        return True

    def begin_call(self, name: str) -> None:
        self._calls += 1
        self._put(ToolCallBegin(self._calls - 1, name, self.at))

    def arguments_part(self, text: str, size: int) -> ToolArguments:
        """Make a part with arguments of the last call, for `emit`."""
        return ToolArguments(self._calls - 1, text, size)

    def write_arguments(self, text: str) -> None:
        """Emit what was read as `text`, arguments of the last call."""
        self._put(self.arguments_part(text, self.at))

    def emit_until(self, *marks: str, make: MakePart, trim: bool = False) -> Reading[bool]:
        """Emit text as it arrives up to the first of `marks`. Returns False if none is found. With `trim`, white space
        before the mark is read, but not emitted. Content does not include marks that are ignored.
        """
        ignored = self._ignored if make is Content else ()
        patterns = compiled_marks(*marks, *ignored)
        self.starved = False
        while True:
            text = self._text
            found, safe = patterns.locate(text)
            self.at = end = len(text[:safe].rstrip()) if trim else safe
            self._put(make(text[:end], end))
            if end and make is Content:
                self._has_content = True
            if found:
                self.at = safe - end
                if not ignored or not (yield from self._ignore(ignored)):
                    return True
            elif not (yield from self.more()):
                self._emit_end(safe - end, make)
                return False

    @property
    def _ignored(self) -> tuple[str, ...]:
        ignored = (*self.ignored, self.answer_end) if self.answer_end else self.ignored
        return (*ignored, self.reasoning[0]) if self.reasoning else ignored

    def _ignore(self, ignored: tuple[str, ...]) -> Reading[bool]:
        """Drop a mark of `ignored`, and white space on one side of it, if one is here and not in quotes."""
        before, quote = self.at, self.previous
        mark = yield from self.literal(*ignored)
        if mark and not (quote in _QUOTES and (yield from self.peek()) == quote):
            self.at = before
            self.emit(Skipped.of if mark == self.answer_end else Content)
            self.at = len(mark)
            if self.reasoning and mark == self.reasoning[0]:
                yield from self._reason(self.reasoning)
                return True
            if not self._before.strip():
                yield from self.space()
            self.skip()
        elif mark:
            self.emit(Content)
        return bool(mark)

    def label(self, label: str, closing: str) -> Reading[None]:
        """Read `label`, if there is one, where it is a line of its own or all there is before `closing`."""
        if label and (yield from self.literal(f"{label}\n", label + closing)).endswith(closing):
            self.at -= len(closing)

    def _reason(self, reasoning: tuple[str, str, str]) -> Reading[None]:
        """Emit reasoning within content, after its opening tag."""
        _, label, closing = reasoning
        yield from self.label(label, closing)
        yield from self.space()
        self.skip()
        yield from self.emit_until(closing, make=Reasoning, trim=True)
        yield from self.space()
        yield from self.literal(closing)
        self.skip()

    def _emit_end(self, mark_at: int, make: MakePart) -> None:
        """Emit the end of the text, but for a mark that was cut off: most of one in text, any part of one in values."""
        self.at = len(self._text)
        size = self.at - mark_at if make in (Content, Reasoning) else _PARTIAL_MARK
        if self.cut and make is not Reasoning and size >= _PARTIAL_MARK:
            self.skip()
        else:
            self.emit(make)

    def emit_object(self) -> Reading[None]:
        """Emit the JSON object that starts here as arguments, as it arrives."""
        self.skip()
        scanner, complete = JsonValue(), False
        while not complete:
            self.at, complete = scanner.scan(self._text, 0)
            self.emit(self.arguments_part)
            if not complete and not (yield from self.more()):
                return

    def emit_rest(self, make: MakePart) -> Reading[None]:
        """Emit all text to the end, as it arrives."""
        if make is Content and self._ignored:
            yield from self.emit_until(make=make, trim=bool(self.answer_end))
            return
        while True:
            self.at = len(self._text)
            self.emit(make)
            if not (yield from self.more()):
                return

    def _put(self, part: Part) -> None:
        if self.at:
            self._before = self._text[self.at - 1]
            self._text = self._text[self.at :]
            self.at = 0
        if not (part.size or isinstance(part, ToolCallBegin) or (isinstance(part, ToolArguments) and part.text)):
            return
        both = merge(self._parts[-1], part) if self._parts else None
        if both is None:
            self._parts.append(part)
        else:
            self._parts[-1] = both
