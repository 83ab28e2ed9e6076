"""Tool calls of one choice, however a server numbers and names them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import msgspec

from subnet.chat import CallDelta
from subnet.errors import WireError
from subnet.protocols.openai.extra_members import MemberReader

# The message of msgspec for the start of a JSON text.
_TRUNCATED = "Input data was truncated"
# Per choice; no model makes nearly this number.
_MAX_CALLS = 1024
# Members that are read; all others are passed on.
_CALL_MEMBERS = frozenset({"index", "id", "type", "function"})
_FUNCTION_MEMBERS = frozenset({"name", "arguments"})


class _Call:
    """One tool call. `key` and `id` identify it in the server's chunks.

    `index` is its number in our deltas, or -1 until it is reported: its name may arrive in pieces, so that is when
    something else arrives. `extra` are its other members that were not reported yet.
    """

    __slots__ = ("_received_extra", "arguments", "extra", "has_placeholder", "id", "index", "key", "name")

    def __init__(self, key: object, id: str) -> None:
        self.key = key
        self.id = id
        self.name = ""
        self.index = -1
        self.arguments = ""
        self.has_placeholder = False
        self.extra: dict[str, Any] | None = None
        self._received_extra: dict[str, Any] = {}

    @property
    def has_complete_arguments(self) -> bool:
        return _json_error(self.arguments) == ""

    def new_arguments(self, part: str) -> str:
        """Return what is new in a part of the arguments: some servers repeat all that they have sent so far.

        Where both readings are possible, as after {"a": there may be another {"a":, the part is new.
        """
        known = self.arguments
        if not known or not part.startswith(known) or _json_error(known + part) in ("", _TRUNCATED):
            return part
        return part[len(known) :]

    def add_name(self, piece: str) -> None:
        """Append a piece of the name, unless it repeats what is known of it."""
        self.name = piece if piece.startswith(self.name) else self.name + piece

    def add_extra(self, members: dict[str, Any]) -> None:
        """Add other members, unless they repeat what is known of them: clients join texts that are repeated."""
        new = {name: value for name, value in members.items() if self._received_extra.get(name) != value}
        self._received_extra |= new
        self.extra = {**(self.extra or {}), **new} or None

    def take_extra(self) -> dict[str, Any] | None:
        """Return the other members that were not reported yet; from now on they are."""
        extra, self.extra = self.extra, None
        return extra


class ToolCalls:
    """Numbers tool calls from 0 in order of appearance, gives each an id, and names it once.

    Servers differ: indexes may be missing, or 0 for all calls (Ollama, Gemini); ids may be missing, or differ in every
    part; names may be repeated, or in pieces; arguments may be an object instead of its JSON text, or null, or repeat
    all that was sent before.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._reported = 0
        self._call_members = MemberReader(_CALL_MEMBERS)
        self._function_members = MemberReader(_FUNCTION_MEMBERS)

    def __bool__(self) -> bool:
        return bool(self._calls)

    def read(self, parts: Any) -> tuple[CallDelta, ...]:
        """Return the deltas for the `tool_calls` of a chunk or a message. Raises WireError for invalid calls."""
        if not isinstance(parts, list):
            raise WireError("invalid tool calls: expected a list")
        in_chunk: set[_Call] = set()
        return tuple(delta for part in parts for delta in self._read(part, in_chunk))

    def read_function(self, function: Any) -> tuple[CallDelta, ...]:
        """Return the deltas for the older `function_call`, of which a message has one."""
        return self.read([{"index": "function_call", "function": function}])

    def finish(self) -> tuple[CallDelta, ...]:
        """Return the deltas that are missing at the end of the choice: calls without arguments get an empty object.

        Raises WireError for a call without a name.
        """
        deltas = []
        for call in self._calls:
            if not call.name:
                raise WireError("invalid tool call: it has no function name")
            if not call.arguments:
                call.arguments = "{}"
                deltas.append(CallDelta(call.index, arguments="{}") if call.index >= 0 else self._report(call))
        return tuple(deltas)

    def _read(self, part: Any, in_chunk: set[_Call]) -> Iterator[CallDelta]:
        function = part.get("function") if isinstance(part, dict) else None
        if not isinstance(function, dict):
            raise WireError("invalid tool call: it has no function")
        key, id, name = part.get("index"), _text(part.get("id")), _text(function.get("name"))
        arguments = _arguments(function.get("arguments"))
        call = self._find(key, id)
        if call is None or _is_new_call(call, id, name, arguments, same_chunk=call in in_chunk):
            yield from self._report_named()
            call = self._start(key, id)
        in_chunk.add(call)
        if extra := self._extra(part, function):
            call.add_extra(extra)
        yield from self._append(call, name, arguments)

    def _extra(self, part: dict[str, Any], function: dict[str, Any]) -> dict[str, Any] | None:
        extra = self._call_members.read(part)
        if of_function := self._function_members.read(function):
            extra = {**(extra or {}), "function": of_function}
        return extra

    def _report_named(self) -> Iterator[CallDelta]:
        """Report the calls whose names are complete, since another call begins."""
        for call in self._calls:
            if call.index < 0 and call.name:
                yield self._report(call)

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

    def _append(self, call: _Call, name: str, arguments: str) -> Iterator[CallDelta]:
        if not call.arguments and arguments.strip() == "{}":
            # Some servers send a placeholder before the real arguments; without any, `finish` reports it.
            arguments, call.has_placeholder = "", True
        new = call.new_arguments(arguments)
        call.arguments += new
        if call.index >= 0:
            if new or call.extra:
                yield CallDelta(call.index, arguments=new, extra=call.take_extra())
            return
        call.add_name(name)
        if call.name and call.arguments:
            yield self._report(call)

    def _report(self, call: _Call) -> CallDelta:
        call.index, self._reported = self._reported, self._reported + 1
        id = call.id or f"call_{secrets.token_hex(12)}"
        return CallDelta(call.index, id, call.name, call.arguments, call.take_extra())


def _is_new_call(call: _Call, id: str, name: str, arguments: str, *, same_chunk: bool) -> bool:
    """Return whether a part with the same key as `call` starts another call.

    `same_chunk`: the chunk already has a part of `call`.
    """
    # A part without a name never starts a call, whatever its id: older versions of vLLM send a new id in each part.
    if not name or not call.name:
        return False
    if id and call.id:
        return id != call.id
    if same_chunk or (arguments and call.has_complete_arguments and not arguments.startswith(call.arguments)):
        return True
    # Before the arguments begin, it may be the next piece of the name.
    is_piece = call.key is not None and not call.arguments and not call.has_placeholder
    return name != call.name and not is_piece


def _json_error(text: str) -> str:
    """Return the reason why a text is not JSON; "" if it is, and _TRUNCATED if it is the start of one."""
    try:
        msgspec.json.decode(text)
    except RecursionError:
        return "nested too deeply"
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        return str(error)
    return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()
