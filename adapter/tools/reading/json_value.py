"""JSON values: the end of one in a text, and strings."""

from __future__ import annotations

import json


class JsonValue:
    """Scanner that counts brackets outside strings, so invalid JSON has an end as well: before a mark at the latest."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escaped = False

    def scan(self, text: str, at: int) -> tuple[int, bool]:
        """Continue at `at`. Returns the position reached, and True if that is the end of the value."""
        for index in range(at, len(text)):
            if self._ends(text[index]):
                return index + (text[index] != "<"), True
        return len(text), False

    def _ends(self, char: str) -> bool:
        if self._escaped:
            self._escaped = False
        elif self._quoted:
            self._escaped = char == "\\"
            self._quoted = char != '"'
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
        elif char == "<":
            return True
        return not (self._depth or self._quoted)


def encode_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
