"""The text of a choice as a format reads it, and the parts that it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from adapter.tools.reading.json_value import JsonValue
from adapter.tools.reading.parts import Content, Part, Skipped, ToolArguments, ToolCallBegin, merge
from adapter.tools.reading.text import Reading, TextReader, compiled_marks

MakePart: TypeAlias = Callable[[str, int], Part]
Schema: TypeAlias = Mapping[str, Any]
Tools: TypeAlias = Mapping[str, Schema | None]
"""The JSON schema of each function's arguments; None for one that takes none."""


class Source(TextReader):
    """Giving makes a part of all that was read since the last one, so that sizes add up whatever a format does. What
    was read and not given can be read again, as something else, by setting `at` to 0.

    `tools` are the functions that may be called; None: not known.
    """

    def __init__(self, tools: Tools | None = None) -> None:
        super().__init__()
        self.tools = tools
        self._parts: list[Part] = []
        self._calls = 0

    def pop_parts(self) -> list[Part]:
        """Those given since the last time."""
        parts, self._parts = self._parts, []
        return parts

    def emit(self, make: MakePart) -> None:
        self._put(make(self._text[: self.at], self.at))

    def skip(self) -> None:
        self._put(Skipped(self.at))

    def reject(self, size: int) -> None:
        """What was read is no call: a mark of `size` characters with the white space before it is content, and the rest
        is read again. All is content if the text ended before that was clear, so that nothing is read to the end many
        times."""
        if self.at < len(self._text):
            self.at = len(self._text) - len(self._text.lstrip()) + size
        self.emit(Content)

    def abandon_call(self) -> None:
        """A call that was begun goes wrong. Where that is because the text ends, what is not given yet is skipped."""
        if self.at == len(self._text):
            self.skip()

    def begin_call(self, name: str) -> None:
        self._calls += 1
        self._put(ToolCallBegin(self._calls - 1, name, self.at))

    def arguments_part(self, text: str, size: int) -> ToolArguments:
        """A part of the call begun last, for `give`."""
        return ToolArguments(self._calls - 1, text, size)

    def write_arguments(self, text: str) -> None:
        """`text` is what was read, as arguments of the call begun last."""
        self._put(self.arguments_part(text, self.at))

    def emit_until(self, *marks: str, make: MakePart, trim: bool = False) -> Reading[bool]:
        """Gives what was not given yet, and text as it comes, up to the first of `marks`; False where none comes.
        With `trim`, white space before the mark is not given, but counts as read."""
        wanted = compiled_marks(*marks)
        while True:
            found = wanted.find(self._text, 0)
            safe = found if found >= 0 else wanted.safe_length(self._text)
            self.at = shown = len(self._text[:safe].rstrip()) if trim else safe
            self.emit(make)
            if found >= 0:
                self.at = safe - shown
                return True
            if not (yield from self.more()):
                yield from self.emit_rest(make)
                return False

    def emit_object(self) -> Reading[None]:
        """Gives a JSON object, which begins here, as arguments, as it comes."""
        self.skip()
        scanner, complete = JsonValue(), False
        while not complete:
            self.at, complete = scanner.scan(self._text, 0)
            self.emit(self.arguments_part)
            if not complete and not (yield from self.more()):
                return

    def emit_rest(self, make: MakePart) -> Reading[None]:
        """Gives what was not given yet, and all text that comes."""
        while True:
            self.at = len(self._text)
            self.emit(make)
            if not (yield from self.more()):
                return

    def _put(self, part: Part) -> None:
        self._text, self.at = self._text[self.at :], 0
        if not (part.size or isinstance(part, ToolCallBegin) or (isinstance(part, ToolArguments) and part.text)):
            return
        both = merge(self._parts[-1], part) if self._parts else None
        if both is None:
            self._parts.append(part)
        else:
            self._parts[-1] = both
