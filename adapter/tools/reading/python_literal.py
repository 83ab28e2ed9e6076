"""Conversion of Python literals to JSON. JSON itself is unchanged."""

from __future__ import annotations

import re

import msgspec

from adapter.tools.reading.json_value import encode_string

_TOKEN = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?P<spare>,(?=\s*[\])}]))"""
    r"|(?P<integer>[+-]?[0-9][0-9_]*(?![\w.]))|[\w.]+|.",
    re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U((?:000[0-9a-fA-F]|0010)[0-9a-fA-F]{4})|(.))", re.DOTALL
)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "\n": ""}
_WORDS = {"True": "true", "False": "false", "None": "null", "(": "[", ")": "]"}


class PythonValue:
    """Scanner for the end of a value, which is before a comma or an unmatched closing bracket."""

    def __init__(self) -> None:
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def scan(self, text: str, at: int) -> tuple[int, bool]:
        """Continue at `at`. Returns the position reached, and True if that is the end of the value."""
        for index in range(at, len(text)):
            if self._ends(text[index]):
                return index, True
        return len(text), False

    def _ends(self, char: str) -> bool:
        if self._escaped:
            self._escaped = False
        elif self._quote:
            self._escaped = char == "\\"
            self._quote = "" if char == self._quote else self._quote
        elif char in "'\"":
            self._quote = char
        elif char in "([{":
            self._depth += 1
        elif char in ")]}":
            self._depth -= 1
            return self._depth < 0
        return char == "," and not self._depth and not self._quote


def python_to_json(value: str) -> str:
    """Convert a literal to JSON. Text that is not a valid literal becomes a JSON string."""
    text = literal_to_json(value)
    return encode_string(value.strip()) if text is None else text


def literal_to_json(value: str) -> str | None:
    """Convert a literal to JSON: tuples and sets become arrays, and integers lose zeros and signs that JSON does not
    allow in front. Returns None for text that is not a valid literal.
    """
    text = _converted(value.strip())
    try:
        msgspec.json.decode(text)
        text.encode()
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return text


def _converted(value: str) -> str:
    pieces: list[str] = []
    opened: list[int] = []
    objects: set[int] = set()
    last = -1  # position of the last piece that is not white space
    for match in _TOKEN.finditer(value):
        if match["spare"]:
            continue
        piece = _token(match)
        if piece == ":" and opened:
            objects.add(opened[-1])
        elif match[0] in "([{":
            opened.append(len(pieces))
        elif match[0] in ")]}" and opened and (start := opened.pop()) != last and start not in objects:
            pieces[start], piece = "[", "]"
        last = last if piece.isspace() else len(pieces)
        pieces.append(piece)
    return "".join(pieces)


def _token(match: re.Match[str]) -> str:
    text = match[0]
    if match["integer"]:
        return _integer(text)
    return _string(text) if text[0] in "'\"" and len(text) > 1 else _WORDS.get(text, text)


def _integer(text: str) -> str:
    digits = text.lstrip("+-").replace("_", "").lstrip("0") or "0"
    return f"-{digits}" if text[0] == "-" else digits


def _string(text: str) -> str:
    if text[0] == '"':
        try:
            msgspec.json.decode(text)
            return text
        except msgspec.MsgspecError:
            pass
    return encode_string(_ESCAPE.sub(_unescaped, text[1:-1]))


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        return chr(int(code, 16))
    return _ESCAPED.get(match[4], match[4] if match[4] in "'\"\\" else match[0])
