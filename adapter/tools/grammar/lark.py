"""Builder of grammars in llguidance's Lark dialect."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from adapter.tools.reading.source import Schema

# Spacing as in chat templates. Small models get stuck if any white space is allowed.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

_PLAIN = frozenset(string.ascii_letters + string.digits + "_ ")


class UnsupportedSchema(ValueError):
    """Raised if a format cannot enforce a schema. `path` leads to the cause: function name, then keys of the schema."""

    def __init__(self, path: tuple[str, ...], reason: str) -> None:
        super().__init__(f"{'.'.join(path)}: {reason}")
        self.path = path
        self.reason = reason


class Lark:
    """Grammar under construction. Expressions are strings; `rule` adds a rule and returns its name.

    `special` has the ids of the model's control tokens by text: a mark among them is matched as that token, any other
    mark as text.
    """

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        self._rules: list[str] = []

    def has(self, mark: str) -> bool:
        """Return True if `mark` is a control token of the model."""
        return mark in self._special

    def text(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules, ""])

    def rule(self, body: str, options: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        return name

    def mark(self, text: str) -> str:
        """Return an expression for `text`, with control tokens for the marks in it. "" if the text is empty."""
        pieces = self._pattern.split(text) if self._special else [text]
        found = (f"<[{self._special[piece]}]>" if self.has(piece) else quoted(piece) for piece in pieces if piece)
        return " ".join(found)

    def _has_tokens(self, text: str) -> bool:
        return bool(self._special and self._pattern.search(text))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        marks = sorted(self._special, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, marks))})")

    def until(self, mark: str, *others: str) -> str:
        """Return an expression for any text without `mark` and `others`, followed by `mark`."""
        if self._has_tokens(mark):
            # The text must not spell the mark either: parsers cannot distinguish that from the token.
            return f"{self._without(mark, *others)} {self.mark(mark)}"
        text = self._without(*others) if others else "/(?s:.*)/"
        return self.rule(text, f"[suffix={quoted(mark)}]")

    def _without(self, *marks: str) -> str:
        return self.terminal(f"/(?s:.*)/ & ~/(?s:.*)({'|'.join(map(escape, marks))})(?s:.*)/")

    def bounded(self, mark: str, min_length: int, max_length: int | None) -> str:
        """Return an expression for a text of limited length, followed by `mark`, which starts with `<` or a line end.
        The text must not contain `<`: excluding only the mark would exceed the states of llguidance's lexer.
        """
        text = f"/[^<]{{{min_length},{'' if max_length is None else max_length}}}/"
        return f"{text} {self.mark(mark)}" if self._has_tokens(mark) else self.terminal(f"{text} {quoted(mark)}")

    def terminal(self, body: str) -> str:
        """Add a terminal, which is matched greedily, and return its name."""
        name = f"T{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def one_of(self, options: Iterable[str]) -> str:
        return self.rule(" | ".join(options))

    def recursive(self, options: Callable[[str], Iterable[str]]) -> str:
        """Add a rule whose options refer to it by the name that they get, and return that name."""
        place = len(self._rules)
        name = self.rule("")
        self._rules[place] = f"{name}: {' | '.join(options(name))}"
        return name

    def repeated(self, one: str, separator: str) -> str:
        """Return an expression for one or more of `one`."""
        again = self.rule(one)
        return f"{again} ({separator} {again})*" if separator else f"{again}+"

    def json(self, schema: object) -> str:
        """Return an expression for a JSON value that fits `schema`."""
        own = {**schema, "x-guidance": _SPACING} if isinstance(schema, Mapping) else schema
        return self.rule(f"%json {json.dumps(own)}")

    def arguments(self, schema: Schema | None) -> str:
        """Return an expression for the arguments of a function, as a JSON object."""
        return self.json(as_object(schema))


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def escape(text: str) -> str:
    """Return a regular expression for `text`, which is valid in a character class as well."""
    return "".join(char if char in _PLAIN else f"\\x{{{ord(char):x}}}" for char in text)


LINE = quoted("\n")


def as_object(schema: Schema | None) -> dict[str, Any]:
    """Return a schema of an object: arguments are one even if their schema does not say so."""
    if schema is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "object", **schema}
