"""Reader of the expressions of llama.cpp's tests: literals, braces, calls and chains of calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/|^\#[^\n]*)
    |(?P<raw>R"(?P<fence>[^(\s]*)\((?P<body>.*?)\)(?P=fence)")
    |(?P<text>"(?:[^"\\\n]|\\.)*")
    |(?P<char>'(?:[^'\\\n]|\\.)+')
    |(?P<name>[A-Za-z_]\w*(?:::\w+)*)
    |(?P<number>-?\d+)
    |(?P<mark>->|.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_CONSTANTS: Mapping[str, object] = {"true": True, "false": False, "nullptr": None}


class Unreadable(Exception):
    """Raised for C++ that this reader does not understand."""


class Token(msgspec.Struct, frozen=True):
    kind: str
    value: Any
    line: int


class Call(msgspec.Struct, frozen=True):
    """Call of a method in a chain."""

    name: str
    arguments: list[Any]


def tokens_of(source: str) -> list[Token]:
    """Return the tokens of C++ source, with decoded strings."""
    found, line = [], 1
    for match in _TOKEN.finditer(source):
        kind, text = str(match.lastgroup), match.group()
        if match["raw"] is not None:
            found.append(Token("text", match["body"], line))
        elif kind == "text":
            found.append(Token("text", _decoded(text), line))
        elif kind != "space":
            found.append(Token(kind, int(text) if kind == "number" else text, line))
        line += text.count("\n")
    return found


def _decoded(text: str) -> str:
    value = ast.literal_eval("b" + "".join(char if ord(char) < 128 else _escaped(char) for char in text))
    return bytes(value).decode("utf-8", "replace")


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode())


class Reader:
    """Reads expressions at the position `at`. `names` are the values of variables, `functions` those of functions."""

    def __init__(
        self, tokens: list[Token], names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]
    ) -> None:
        self.tokens = tokens
        self.at = 0
        self._names = names
        self._functions = functions

    def value(self) -> Any:
        """Read an expression. Raises Unreadable."""
        value = self._operand()
        while self._take("+"):
            value = value + self._operand()
        return value

    def chain(self) -> Iterator[Call]:
        """Read `.name(arguments)` until there are no more. Raises Unreadable."""
        while self._take("."):
            name = self._next().value
            self._expect("(")
            yield Call(name, self._list(")"))

    def _operand(self) -> Any:
        token = self._next()
        if token.kind == "text":
            text = token.value
            while self._peek().kind == "text":
                text += self._next().value
            return text
        if token.kind == "number":
            return token.value
        if token.value == "{":
            return self._list("}")
        if token.kind == "name":
            return self._named(token.value)
        raise Unreadable(f"{token.value!r} in line {token.line}")

    def _named(self, name: str) -> Any:
        if self._take("("):
            arguments = self._list(")")
            if name == "std::string":
                return arguments[0]
            if name not in self._functions:
                raise Unreadable(f"the function {name}")
            return self._functions[name](*arguments)
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name.isupper():
            return name
        if name not in self._names:
            raise Unreadable(f"the name {name}")
        return self._names[name]

    def _list(self, end: str) -> list[Any]:
        values: list[Any] = []
        while not self._take(end):
            values.append(self.value())
            if not self._take(","):
                self._expect(end)
                break
        return values

    def _peek(self) -> Token:
        return self.tokens[self.at]

    def _next(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def _take(self, mark: str) -> bool:
        token = self._peek()
        if token.kind in ("mark", "name") and token.value == mark:
            self.at += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        token = self._next()
        if token.value != mark:
            raise Unreadable(f"{token.value!r} instead of {mark!r} in line {token.line}")
