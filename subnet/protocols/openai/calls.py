"""The tool calls of one answer, whichever way a server counts and names them."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from subnet.chat import CallDelta
from subnet.errors import WireError

# Of one answer: far more than any model makes.
_MOST = 1024


class _Call:
    """A call of the server's: `key` and `id` are what it goes by there. `number` is ours, once it is known what is
    called; until then arguments are held.
    """

    __slots__ = ("arguments", "id", "key", "name", "number")

    def __init__(self, key: object, id: str) -> None:
        self.key = key
        self.id = id
        self.name = ""
        self.number = -1
        self.arguments: list[str] = []

    @property
    def complete(self) -> bool:
        try:
            msgspec.json.decode("".join(self.arguments).encode())
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class Calls:
    """Numbers calls from 0 in the order in which they come, gives each an id, and names it once.

    Servers differ: indexes may be missing, or 0 for all (Ollama, Gemini); ids may be missing, or come with every piece;
    names may be repeated; arguments may be an object instead of its text.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._named = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def read(self, pieces: Any) -> tuple[CallDelta, ...]:
        """From the `tool_calls` of a chunk or a message. Raises WireError."""
        if not isinstance(pieces, list):
            raise WireError("invalid tool calls: expected a list")
        seen: set[_Call] = set()
        return tuple(delta for piece in pieces if (delta := self._read(piece, seen)) is not None)

    def read_function(self, function: Any) -> tuple[CallDelta, ...]:
        """From the older `function_call`, of which there is one."""
        return self.read([{"index": "function_call", "function": function}])

    def check(self) -> None:
        """At the end. Raises WireError for a call of nothing."""
        if self._named < len(self._calls):
            raise WireError("invalid tool call: it has no function name")

    def _read(self, piece: Any, seen: set[_Call]) -> CallDelta | None:
        function = piece.get("function") if isinstance(piece, dict) else None
        if not isinstance(function, dict):
            raise WireError("invalid tool call: it has no function")
        key, id, name = piece.get("index"), _text(piece.get("id")), _text(function.get("name"))
        arguments = _arguments(function.get("arguments"))
        call = self._find(key, id)
        if call is None or _begins(call, id, name, arguments, again=call in seen):
            call = self._begin(key, id)
        seen.add(call)
        return self._add(call, name, arguments)

    def _begin(self, key: object, id: str) -> _Call:
        if len(self._calls) >= _MOST:
            raise WireError(f"more than {_MOST} tool calls")
        call = _Call(key, id)
        self._calls.append(call)
        return call

    def _find(self, key: object, id: str) -> _Call | None:
        """The call that a piece may belong to."""
        if key is not None:
            known = next((call for call in reversed(self._calls) if call.key == key), None)
        else:
            known = next((call for call in self._calls if id and call.id == id), None)
        if known is None and key is None and self._calls:
            known = self._calls[-1]
        return known

    def _add(self, call: _Call, name: str, arguments: str) -> CallDelta | None:
        call.arguments.append(arguments)
        if call.number >= 0:
            return CallDelta(call.number, arguments=arguments) if arguments else None
        call.name = name
        if not name:
            return None
        call.number, self._named = self._named, self._named + 1
        return CallDelta(call.number, call.id or f"call_{secrets.token_hex(12)}", name, "".join(call.arguments))


def _begins(call: _Call, id: str, name: str, arguments: str, *, again: bool) -> bool:
    """Whether a piece that goes by the same key as `call` is of another one. `again`: it is in the same chunk."""
    # A piece without a name is never the first, whatever its id is: older ones of vLLM have a new id in each.
    if not name or not call.name:
        return False
    if id and call.id:
        return id != call.id
    return again or name != call.name or (bool(arguments) and call.complete)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()
