"""JSON as clients read it: whatever Python's and JavaScript's own readers accept."""

from __future__ import annotations

import json
from typing import Any

import msgspec

# Limits of one value: each item takes a hundred times its bytes in memory, and the event loop waits for all of them.
_MAX_ITEMS = 1 << 21
_FEW_BYTES = 1 << 20


def decode(data: bytes | str) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for one of more than 2,097,152 items and members.

    Halves of surrogate pairs are kept as they are, and NaN and infinities become None: msgspec rejects both, while
    clients accept them (https://docs.python.org/3/library/json.html#standard-compliance-and-interoperability).
    """
    if len(data) > _FEW_BYTES:
        _check_items(data)
    try:
        return msgspec.json.decode(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (msgspec.DecodeError, UnicodeEncodeError):
        pass
    try:
        return json.loads(data, parse_constant=lambda _: None)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _check_items(data: bytes | str) -> None:
    # At most one for each comma and each bracket, as counting them is faster than decoding.
    marks = (",", "[", "{") if isinstance(data, str) else (b",", b"[", b"{")
    if sum(map(data.count, marks)) > _MAX_ITEMS:  # type: ignore[arg-type]
        raise ValueError(f"more than {_MAX_ITEMS} items and members")


def decode_by_items(data: bytes) -> Any:
    """Like `decode`, but lists that are members of an object are decoded item by item.

    A call of msgspec holds the GIL until it returns, so in a thread only many short ones let the event loop run.
    """
    try:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return {name: _decode_items(bytes(value)) for name, value in members.items()}
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return decode(data)


def _decode_items(data: bytes) -> Any:
    if not data.startswith(b"["):
        return decode(data)
    return [decode(bytes(item)) for item in msgspec.json.decode(data, type=list[msgspec.Raw])]


class SurrogateJoiner:
    """Joins surrogate pairs whose halves are in two texts of a stream.

    `pending` is True while a half is held back; with `hold` False none is.

    Halves without the other one become U+FFFD, as in JavaScript's encoder.
    """

    def __init__(self, *, hold: bool = True) -> None:
        self._hold = hold
        self._held: dict[tuple[str | int, ...], str] = {}

    @property
    def pending(self) -> bool:
        return bool(self._held)

    def join(self, value: Any, path: tuple[str | int, ...] = ()) -> Any:
        """Return `value`, a part of the stream, without halves. Texts at the same `path` in it follow one another."""
        if isinstance(value, str):
            return self._join_text(value, path)
        if isinstance(value, list):
            return [self.join(item, (*path, _position(item, number))) for number, item in enumerate(value)]
        if isinstance(value, dict):
            return {_replaced(name): self.join(item, (*path, name)) for name, item in value.items()}
        return value

    def flush(self, path: tuple[str | int, ...]) -> str:
        """Return what is held back of the text at `path`, when the stream has ended."""
        return "\ufffd" if self._held.pop(path, "") else ""

    def _join_text(self, text: str, path: tuple[str | int, ...]) -> str:
        text = self._held.pop(path, "") + text
        if self._hold and text and "\ud800" <= text[-1] <= "\udbff":
            self._held[path] = text[-1]
            text = text[:-1]
        return _replaced(text)


def _position(item: Any, number: int) -> int:
    """Return what identifies an item of a list in a chunk: its `index`, which tool calls have, or its number."""
    index = item.get("index") if isinstance(item, dict) else None
    return index if type(index) is int else number


def without_halves(value: Any) -> Any:
    """Return a copy of a JSON value whose texts have no halves of surrogate pairs."""
    return SurrogateJoiner(hold=False).join(value)


def _replaced(text: str) -> str:
    """Join the halves within `text`, and replace those that are alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
