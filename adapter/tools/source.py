"""The text of a choice as a format reads it, and the parts that it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from adapter.tools.parts import Content, Part, Skipped, ToolArguments, ToolCallBegin, merged
from adapter.tools.text import Reading, Text, marks_of
from adapter.tools.values.json_value import JsonValue

Give: TypeAlias = Callable[[str, int], Part]
Schema: TypeAlias = Mapping[str, Any]
Tools: TypeAlias = Mapping[str, Schema | None]
"""The JSON schema of each function's arguments; None for one that takes none."""


class Source(Text):
    """Giving makes a part of all that was read since the last one, so that sizes add up whatever a format does. What
    was read and not given can be read again, as something else, by setting `at` to 0.

    `tools` are the functions that may be called; None: not known.
    """

    def __init__(self, tools: Tools | None = None) -> None:
        super().__init__()
        self.tools = tools
        self._parts: list[Part] = []
        self._calls = 0

    def parts(self) -> list[Part]:
        """Those given since the last time."""
        parts, self._parts = self._parts, []
        return parts

    def give(self, make: Give) -> None:
        self._put(make(self._text[: self.at], self.at))

    def skip(self) -> None:
        self._put(Skipped(self.at))

    def refuse(self, size: int) -> None:
        """What was read is no call: a mark of `size` characters with the white space before it is content, and the rest
        is read again. All is content if the text ended before that was clear, so that nothing is read to the end many
        times."""
        if self.at < len(self._text):
            self.at = len(self._text) - len(self._text.lstrip()) + size
        self.give(Content)

    def cut(self) -> None:
        """A call that was begun goes wrong. Where that is because the text ends, what is not given yet is skipped."""
        if self.at == len(self._text):
            self.skip()

    def begin(self, name: str) -> None:
        self._calls += 1
        self._put(ToolCallBegin(self._calls - 1, name, self.at))

    def argument(self, text: str, size: int) -> ToolArguments:
        """A part of the call begun last, for `give`."""
        return ToolArguments(self._calls - 1, text, size)

    def write(self, text: str) -> None:
        """`text` is what was read, as arguments of the call begun last."""
        self._put(self.argument(text, self.at))

    def pass_until(self, *marks: str, give: Give, trim: bool = False) -> Reading[bool]:
        """Gives what was not given yet, and text as it comes, up to the first of `marks`; False where none comes.
        With `trim`, white space before the mark is not given, but counts as read."""
        wanted = marks_of(*marks)
        while True:
            found = wanted.find(self._text, 0)
            safe = found if found >= 0 else wanted.safe(self._text)
            self.at = shown = len(self._text[:safe].rstrip()) if trim else safe
            self.give(give)
            if found >= 0:
                self.at = safe - shown
                return True
            if not (yield from self.more()):
                yield from self.rest(give)
                return False

    def pass_object(self) -> Reading[None]:
        """Gives a JSON object, which begins here, as arguments, as it comes."""
        self.skip()
        scanner, complete = JsonValue(), False
        while not complete:
            self.at, complete = scanner.scan(self._text, 0)
            self.give(self.argument)
            if not complete and not (yield from self.more()):
                return

    def rest(self, give: Give) -> Reading[None]:
        """Gives what was not given yet, and all text that comes."""
        while True:
            self.at = len(self._text)
            self.give(give)
            if not (yield from self.more()):
                return

    def _put(self, part: Part) -> None:
        self._text, self.at = self._text[self.at :], 0
        if not (part.size or isinstance(part, ToolCallBegin) or (isinstance(part, ToolArguments) and part.text)):
            return
        both = merged(self._parts[-1], part) if self._parts else None
        if both is None:
            self._parts.append(part)
        else:
            self._parts[-1] = both
