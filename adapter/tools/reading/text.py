"""Incremental reading of text that arrives in pieces.

Readers are generators, called with `yield from`, that yield whenever they need more text. So they are written as if the
whole text were available.
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
    """Finds the end of a value in text that arrives in pieces."""

    def scan(self, text: str, at: int) -> tuple[int, bool]:
        """Continue at `at`. Returns the position reached, and True if that is the end of the value."""


class TextReader:
    """Text with a read position `at`, which can be set back after reading ahead. `cut`: the text has ended before the
    model was done. `starved`: more text was wanted when there was none.
    """

    def __init__(self) -> None:
        self.at = 0
        self.cut = self.starved = False
        self._text = ""
        self._ended = False

    def add(self, text: str) -> None:
        self._text += text

    def end(self, cut: bool = False) -> None:
        self._ended, self.cut = True, cut

    def from_position(self, at: int) -> str:
        """Return the text from `at` on that has arrived."""
        return self._text[at:]

    def more(self) -> Reading[bool]:
        """Wait for more text. Returns False at the end of the text."""
        if not self._ended:
            yield
            if not self._ended:
                return True
        self.starved = True
        return False

    def peek(self) -> Reading[str]:
        """Return the next character without reading it, or "" at the end."""
        while self.at == len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self.at]

    def match(self, pattern: re.Pattern[str]) -> Reading[str]:
        """Read what `pattern` matches here. It must match the empty string, and more text may only extend a match."""
        end = self.at
        while True:
            match = pattern.match(self._text, self.at)
            end = match.end() if match else self.at
            if end < len(self._text) or not (yield from self.more()):
                return self._advance(end)

    def space(self) -> Reading[str]:
        """Read white space, if any."""
        return self.match(_SPACE)

    def literal(self, *options: str) -> Reading[str]:
        """Read one of `options`, none of which may be a prefix of another. Returns "" if none is found here."""
        max_length = max(map(len, options))
        while True:
            rest = self._text[self.at : self.at + max_length]
            for option in options:
                if rest.startswith(option):
                    return self._advance(self.at + len(option))
            if not any(option.startswith(rest) for option in options) or not (yield from self.more()):
                return ""

    def text(self, text: str, space_after: bool = True) -> Reading[bool]:
        """Read `text`, whose white space at the ends may be missing or different, and white space after it. Returns
        False, without reading anything, if it is not here, or if it is white space only.
        """
        if not text.strip():
            return False
        at = self.at
        yield from self.space()
        found = yield from self.literal(text.strip())
        if not found:
            self.at = at
        elif space_after:
            yield from self.space()
        return bool(found)

    def tokens(self, *tokens: str) -> Reading[bool]:
        """Read `tokens` with any white space around each. Returns False if one is not here."""
        for token in tokens:
            yield from self.space()
            if not (yield from self.literal(token)):
                return False
        yield from self.space()
        return True

    def read_until(self, *marks: str) -> Reading[str | None]:
        """Read the text before the first of `marks`. Returns None if there is none."""
        patterns = compiled_marks(*marks)
        start = self.at
        while True:
            position = patterns.find(self._text, start)
            if position >= 0:
                return self._advance(position)
            start = max(self.at, len(self._text) - patterns.max_length + 1)
            if not (yield from self.more()):
                self._advance(len(self._text))
                return None

    def value(self) -> Reading[str | None]:
        """Read the text of a JSON value. Returns None if there is none, or if it is incomplete."""
        if (yield from self.peek()) not in ("{", "[", '"'):
            return (yield from self.match(_SCALAR)) or None
        return (yield from self.scan(JsonValue()))

    def scan(self, scanner: Scanner) -> Reading[str | None]:
        """Read up to the end that `scanner` finds. Returns None if there is none."""
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
    """Set of strings to search for, none of which may be a prefix of another."""

    def __init__(self, *marks: str) -> None:
        self.max_length = max(map(len, marks))
        self._marks = marks
        self._pattern = re.compile("|".join(map(re.escape, marks)))
        self._firsts = frozenset(mark[0] for mark in marks)

    def find(self, text: str, start: int) -> int:
        """Return the position of the first mark, or -1."""
        match = self._pattern.search(text, start)
        return match.start() if match else -1

    def locate(self, text: str) -> tuple[bool, int]:
        """Return whether `text` has a mark, and its position or otherwise the safe length."""
        if self._firsts.isdisjoint(text):
            return False, len(text)
        match = self._pattern.search(text)
        return (True, match.start()) if match else (False, self._safe_length(text))

    def _safe_length(self, text: str) -> int:
        """Return the length of `text` before its longest suffix that is a prefix of a mark."""
        for at in range(max(0, len(text) - self.max_length + 1), len(text)):
            if any(mark.startswith(text[at:]) for mark in self._marks):
                return at
        return len(text)


compiled_marks = lru_cache(256)(Marks)
