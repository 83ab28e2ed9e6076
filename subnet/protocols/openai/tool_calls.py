"""Tool calls of one choice, however a server numbers and names them."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from subnet.chat import CallDelta
from subnet.errors import WireError

# Per choice; no model makes nearly this number.
_MAX_CALLS = 1024


class _Call:
    """One tool call. `key` and `id` identify it in the server's chunks.

    `index` is its number in our deltas, or -1 until its name is known; arguments are held back until then.
    """

    __slots__ = ("arguments", "id", "index", "key", "name")

    def __init__(self, key: object, id: str) -> None:
        self.key = key
        self.id = id
        self.name = ""
        self.index = -1
        self.arguments: list[str] = []

    @property
    def has_complete_arguments(self) -> bool:
        try:
            msgspec.json.decode("".join(self.arguments).encode())
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class ToolCalls:
    """Numbers tool calls from 0 in order of appearance, gives each an id, and names it once.

    Servers differ: indexes may be missing, or 0 for all calls (Ollama, Gemini); ids may be missing, or differ in every
    part; names may be repeated; arguments may be an object instead of its JSON text.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._named = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def read(self, parts: Any) -> tuple[CallDelta, ...]:
        """Return the deltas for the `tool_calls` of a chunk or a message. Raises WireError for invalid calls."""
        if not isinstance(parts, list):
            raise WireError("invalid tool calls: expected a list")
        in_chunk: set[_Call] = set()
        return tuple(delta for part in parts if (delta := self._read(part, in_chunk)) is not None)

    def read_function(self, function: Any) -> tuple[CallDelta, ...]:
        """Return the deltas for the older `function_call`, of which a message has one."""
        return self.read([{"index": "function_call", "function": function}])

    def check(self) -> None:
        """Check at the end of the choice that every call has a name. Raises WireError otherwise."""
        if self._named < len(self._calls):
            raise WireError("invalid tool call: it has no function name")

    def _read(self, part: Any, in_chunk: set[_Call]) -> CallDelta | None:
        function = part.get("function") if isinstance(part, dict) else None
        if not isinstance(function, dict):
            raise WireError("invalid tool call: it has no function")
        key, id, name = part.get("index"), _text(part.get("id")), _text(function.get("name"))
        arguments = _arguments(function.get("arguments"))
        call = self._find(key, id)
        if call is None or _is_new_call(call, id, name, arguments, same_chunk=call in in_chunk):
            call = self._start(key, id)
        in_chunk.add(call)
        return self._append(call, name, arguments)

    def _start(self, key: object, id: str) -> _Call:
        if len(self._calls) >= _MAX_CALLS:
            raise WireError(f"more than {_MAX_CALLS} tool calls")
        call = _Call(key, id)
        self._calls.append(call)
        return call

    def _find(self, key: object, id: str) -> _Call | None:
        """Return the call that a part may belong to: the one with its index, else its id, else the last one."""
        if key is not None:
            call = next((call for call in reversed(self._calls) if call.key == key), None)
        else:
            call = next((call for call in self._calls if id and call.id == id), None)
        if call is None and key is None and self._calls:
            call = self._calls[-1]
        return call

    def _append(self, call: _Call, name: str, arguments: str) -> CallDelta | None:
        call.arguments.append(arguments)
        if call.index >= 0:
            return CallDelta(call.index, arguments=arguments) if arguments else None
        call.name = name
        if not name:
            return None
        call.index, self._named = self._named, self._named + 1
        return CallDelta(call.index, call.id or f"call_{secrets.token_hex(12)}", name, "".join(call.arguments))


def _is_new_call(call: _Call, id: str, name: str, arguments: str, *, same_chunk: bool) -> bool:
    """Return whether a part with the same key as `call` starts another call.

    `same_chunk`: the chunk already has a part of `call`.
    """
    # A part without a name never starts a call, whatever its id: older versions of vLLM send a new id in each part.
    if not name or not call.name:
        return False
    if id and call.id:
        return id != call.id
    return same_chunk or name != call.name or (bool(arguments) and call.has_complete_arguments)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()
