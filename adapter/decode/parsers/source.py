"""The text of a choice as a format reads it: in any pieces, from left to right, and again where it was no call.

A format is written as if all the text were there. Its functions are generators that stop (`yield`) where they need
more text than has come; they are called with `yield from`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, TypeVar

from adapter.decode.parsers.json_value import JsonValue
from adapter.decode.parts import Content, Part, Skipped, ToolArguments, ToolCallBegin, merged

T = TypeVar("T")
Reading: TypeAlias = Generator[None, None, T]
Give: TypeAlias = Callable[[str, int], Part]
Schema: TypeAlias = Mapping[str, Any]
Tools: TypeAlias = Mapping[str, Schema | None]
"""The JSON schema of each function's arguments; None for one that takes none."""


class Scanner(Protocol):
    """Finds an end in text that comes in pieces."""

    def scan(self, text: str, at: int) -> tuple[int, bool]:
        """Reads on from `at`: how far it came, and whether that is the end."""


_SPACE = re.compile(r"\s*")
_SCALAR = re.compile(r"[\w.+-]*")


class Source:
    """Reading moves on in the text. Giving makes a part of all that was read since the last one, so that the sizes
    add up whatever a format does.

    `tools` are the functions that may be called; None: not known. `at` is how much was read since the last part; what
    reads ahead may set it back.
    """

    def __init__(self, tools: Tools | None = None) -> None:
        self.tools = tools
        self._parts: list[Part] = []
        self._calls = 0
        self._text = ""
        self.at = 0
        self._ended = False

    def add(self, text: str) -> None:
        self._text += text

    def end(self) -> None:
        self._ended = True

    def parts(self) -> list[Part]:
        """Those given since the last time."""
        parts, self._parts = self._parts, []
        return parts

    # Reading.

    def more(self) -> Reading[bool]:
        """Waits for more text. False: that was all."""
        if not self._ended:
            yield
        return not self._ended

    def peek(self) -> Reading[str]:
        """The next character, or "" at the end."""
        while self.at == len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self.at]

    def match(self, pattern: re.Pattern[str]) -> Reading[str]:
        """What `pattern` matches here. It is one that matches nothing too, and that more text can only extend."""
        end = self.at
        while True:
            found = pattern.match(self._text, self.at)
            end = found.end() if found else self.at
            if end < len(self._text) or not (yield from self.more()):
                return self._take(end)

    def space(self) -> Reading[str]:
        """White space, if there is any."""
        return self.match(_SPACE)

    def literal(self, *options: str) -> Reading[str]:
        """The one of `options` that stands here, or "". None of them is the beginning of another."""
        longest = max(map(len, options))
        while True:
            rest = self._text[self.at : self.at + longest]
            for option in options:
                if rest.startswith(option):
                    return self._take(self.at + len(option))
            if not any(option.startswith(rest) for option in options) or not (yield from self.more()):
                return ""

    def before(self, *marks: str) -> Reading[str | None]:
        """The text up to the first of `marks`, or None where none of them comes."""
        pattern, longest, _ = _any_of(marks)
        look = self.at
        while True:
            found = pattern.search(self._text, look)
            if found:
                return self._take(found.start())
            look = max(self.at, len(self._text) - longest + 1)
            if not (yield from self.more()):
                self._take(len(self._text))
                return None

    def value(self) -> Reading[str | None]:
        """The text of a JSON value, or None where there is none, or no end of it."""
        if (yield from self.peek()) not in ("{", "[", '"'):
            return (yield from self.match(_SCALAR)) or None
        return (yield from self.scanned(JsonValue()))

    def scanned(self, scanner: Scanner) -> Reading[str | None]:
        """The text of what `scanner` finds the end of, or None where that does not come."""
        at = self.at
        while True:
            at, complete = scanner.scan(self._text, at)
            if complete:
                return self._take(at)
            if not (yield from self.more()):
                self._take(len(self._text))
                return None

    def _take(self, end: int) -> str:
        text, self.at = self._text[self.at : end], end
        return text

    # Giving.

    def give(self, make: Give) -> None:
        self._put(make(self._text[: self.at], self.at))

    def skip(self) -> None:
        self._put(Skipped(self.at))

    def refuse(self, size: int) -> None:
        """What was read is no call: its first `size` characters are content, and the rest is read again. All of it is
        content if the text ended before that was clear, so that nothing is read to the end many times."""
        if self.at < len(self._text):
            self.at = size
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
        With `trim`, white space before the mark is skipped."""
        pattern, longest, firsts = _any_of(marks)
        while True:
            found, safe = None, len(self._text)
            if not firsts.isdisjoint(self._text):
                found = pattern.search(self._text)
                safe = found.start() if found else _safe(self._text, marks, longest)
            self.at = shown = len(self._text[:safe].rstrip()) if trim else safe
            self.give(give)
            if found:
                self.at = safe - shown
                self.skip()
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


@lru_cache(256)
def _any_of(marks: tuple[str, ...]) -> tuple[re.Pattern[str], int, frozenset[str]]:
    """A pattern for them, the length of the longest, and the characters they begin with."""
    return re.compile("|".join(map(re.escape, marks))), max(map(len, marks)), frozenset(mark[0] for mark in marks)


def _safe(text: str, marks: tuple[str, ...], longest: int) -> int:
    """Where the longest end of `text` begins that may become a mark."""
    for at in range(max(0, len(text) - longest + 1), len(text)):
        if any(mark.startswith(text[at:]) for mark in marks):
            return at
    return len(text)
