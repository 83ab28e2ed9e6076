"""Grammars for calls that a model must make, in llguidance's dialect of Lark."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from typing import Any

from adapter.tools.reading.source import Schema, Tools

# As templates write JSON. A small model gets lost where it may write any white space.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

_PLAIN = frozenset(string.ascii_letters + string.digits + "_ ")


class UnsupportedSchema(ValueError):
    """A format cannot promise that arguments fit this. `path` is where in the tools: function name, then keys."""

    def __init__(self, path: tuple[str, ...], reason: str) -> None:
        super().__init__(f"{'.'.join(path)}: {reason}")
        self.path = path
        self.reason = reason


class Lark:
    """A grammar in the making: expressions are text, `rule` gives one a name.

    `special` are the control tokens of the model, text -> id: a mark that is among them is written as that token, and
    else as text.
    """

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        self._rules: list[str] = []

    def has(self, mark: str) -> bool:
        """Whether `mark` is a control token of the model."""
        return mark in self._special

    def text(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules, ""])

    def rule(self, body: str, options: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        return name

    def mark(self, text: str) -> str:
        return f"<[{self._special[text]}]>" if self.has(text) else quoted(text)

    def until(self, mark: str) -> str:
        """Any text without `mark`, and then `mark`."""
        if self.has(mark):
            # Nor is it spelled out: parsers could not tell that from the token.
            text = self.terminal(f"/(?s:.*)/ & ~/(?s:.*){escape(mark)}(?s:.*)/")
            return f"{text} {self.mark(mark)}"
        return self.rule("/(?s:.*)/", f"[suffix={quoted(mark)}]")

    def bounded(self, mark: str, min_length: int, max_length: int | None) -> str:
        """Text of so many characters, and then `mark`, which begins with `<` or a line end. No `<` is in the text: to
        forbid just the mark would take more states than llguidance's lexer may have."""
        text = f"/[^<]{{{least},{'' if most is None else most}}}/"
        return f"{text} {self.mark(mark)}" if self.has(mark) else self.terminal(f"{text} {quoted(mark)}")

    def terminal(self, body: str) -> str:
        """A name for a regular expression, which is read as far as it goes."""
        name = f"T{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def one_of(self, options: Iterable[str]) -> str:
        return self.rule(" | ".join(options))

    def repeated(self, one: str, separator: str) -> str:
        """One or more."""
        again = self.rule(one)
        return f"{again} ({separator} {again})*" if separator else f"{again}+"

    def json(self, schema: object) -> str:
        """A JSON value that fits."""
        own = {**schema, "x-guidance": _SPACING} if isinstance(schema, Mapping) else schema
        return self.rule(f"%json {json.dumps(own)}")

    def arguments(self, schema: Schema | None) -> str:
        """The arguments of one function, as a JSON object."""
        return self.json(as_object(schema))

    def object(self, tools: Tools, key: str) -> str:
        """A call as a JSON object, its arguments under `key`."""
        options = []
        for name, schema in tools.items():
            opening = quoted(f'{{"name": {json.dumps(name)}, "{key}": ')
            options.append(f'{opening} {self.arguments(schema)} "}}"')
        return self.one_of(options)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def escape(text: str) -> str:
    """A regular expression for `text`, which may stand in a class of characters too."""
    return "".join(char if char in _PLAIN else f"\\x{{{ord(char):x}}}" for char in text)


LINE = quoted("\n")


def as_object(schema: Schema | None) -> dict[str, Any]:
    """ArgumentsWriter are an object, also where the schema does not say so."""
    if schema is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "object", **schema}
