"""Reading text that comes in any pieces, from left to right, as if all of it were there.

What reads is a generator that stops (`yield`) where it needs more text than has come; it is called with `yield from`.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from functools import lru_cache
from typing import Protocol, TypeAlias, TypeVar

from adapter.tools.reading.json_value import JsonValue

T = TypeVar("T")
Reading: TypeAlias = Generator[None, None, T]

_SPACE = re.compile(r"\s*")
_SCALAR = re.compile(r"[\w.+-]*")


class Scanner(Protocol):
    """Finds an end in text that comes in pieces."""

    def scan(self, text: str, at: int) -> tuple[int, bool]:
        """Reads on from `at`: how far it came, and whether that is the end."""


class TextReader:
    """`at` is where reading is; what reads ahead may set it back."""

    def __init__(self) -> None:
        self.at = 0
        self._text = ""
        self._ended = False

    def add(self, text: str) -> None:
        self._text += text

    def end(self) -> None:
        self._ended = True

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
                return self._advance(end)

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
                    return self._advance(self.at + len(option))
            if not any(option.startswith(rest) for option in options) or not (yield from self.more()):
                return ""

    def read_until(self, *marks: str) -> Reading[str | None]:
        """The text up to the first of `marks`, or None where none of them comes."""
        wanted = compiled_marks(*marks)
        look = self.at
        while True:
            found = wanted.find(self._text, look)
            if found >= 0:
                return self._advance(found)
            look = max(self.at, len(self._text) - wanted.max_length + 1)
            if not (yield from self.more()):
                self._advance(len(self._text))
                return None

    def value(self) -> Reading[str | None]:
        """The text of a JSON value, or None where there is none, or no end of it."""
        if (yield from self.peek()) not in ("{", "[", '"'):
            return (yield from self.match(_SCALAR)) or None
        return (yield from self.scan(JsonValue()))

    def scan(self, scanner: Scanner) -> Reading[str | None]:
        """The text of what `scanner` finds the end of, or None where that does not come."""
        at = self.at
        while True:
            at, complete = scanner.scan(self._text, at)
            if complete:
                return self._advance(at)
            if not (yield from self.more()):
                self._advance(len(self._text))
                return None

    def _advance(self, end: int) -> str:
        text, self.at = self._text[self.at : end], end
        return text


class Marks:
    """Texts to look for. None of them is the beginning of another."""

    def __init__(self, *marks: str) -> None:
        self.max_length = max(map(len, marks))
        self._marks = marks
        self._pattern = re.compile("|".join(map(re.escape, marks)))
        self._firsts = frozenset(mark[0] for mark in marks)

    def find(self, text: str, start: int) -> int:
        """Where the first begins, or -1."""
        found = self._pattern.search(text, start)
        return found.start() if found else -1

    def safe_length(self, text: str) -> int:
        """Where the longest end of `text` begins that may become a mark."""
        if self._firsts.isdisjoint(text):
            return len(text)
        for at in range(max(0, len(text) - self.max_length + 1), len(text)):
            if any(mark.startswith(text[at:]) for mark in self._marks):
                return at
        return len(text)


compiled_marks = lru_cache(256)(Marks)
