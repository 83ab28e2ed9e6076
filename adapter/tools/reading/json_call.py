"""Parsing of calls in JSON, `{"name": ..., "arguments": {...}}`, and of arguments alone."""

from __future__ import annotations

import msgspec

from adapter.tools.reading.source import Source
from adapter.tools.reading.text import Reading

_ARGUMENTS = ("arguments", "parameters")


class _CallState:
    """State of a call while it is parsed."""

    name = ""
    arguments: str | None = None
    started = False


def json_call(source: Source, known_only: bool = False) -> Reading[bool]:
    """Parse one call, and emit its arguments as they arrive once the name is known. Arguments before the name, or in a
    string, are emitted when the object is complete. Missing arguments are `{}`, and other members are ignored.

    Returns False, without emitting anything, if this is not a call. With `known_only` the name must be that of a tool.
    """
    call = _CallState()
    if not (yield from source.literal("{")):
        return False
    while True:
        yield from source.space()
        member = yield from _member(source, call, known_only)
        yield from source.space()
        end = member and (yield from source.literal(",", "}"))
        if end == "}":
            return _finish(source, call)
        if not end:
            if call.started:
                source.abandon_call()
            return call.started


def named_call(source: Source, name: str) -> Reading[bool]:
    """Parse the arguments of a call to `name`, an object that starts here, and the space after it. Returns False,
    without emitting anything, if this is not a call.
    """
    if not is_name(name) or (yield from source.peek()) != "{":
        return False
    source.begin_call(name)
    yield from source.emit_object()
    yield from source.space()
    return True


def _member(source: Source, call: _CallState, known_only: bool) -> Reading[bool]:
    key = decode_string((yield from source.value()))
    yield from source.space()
    if key is None or not (yield from source.literal(":")):
        return False
    yield from source.space()
    if key in _ARGUMENTS and call.name and not call.started and (yield from source.peek()) == "{":
        call.started = True
        source.begin_call(call.name)
        yield from source.emit_object()
        return True
    value = yield from source.value()
    if key == "name" and not call.name:
        call.name = decode_string(value) or ""
        return is_name(call.name) and (not known_only or source.tools is None or call.name in source.tools)
    if key in _ARGUMENTS:
        call.arguments = value
    return value is not None


def _finish(source: Source, call: _CallState) -> bool:
    if call.name and not call.started:
        call.started = True
        source.begin_call(call.name)
        source.write_arguments(_as_object(call.arguments))
    elif call.started:
        source.skip()
    return call.started


def is_name(name: str) -> bool:
    return 0 < len(name) <= 256 and name.isprintable()


def decode_string(value: str | None) -> str | None:
    """Return the text of a JSON string, or None for anything else."""
    try:
        return None if value is None else msgspec.json.decode(value, type=str)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _as_object(value: str | None) -> str:
    if value is None or value == "null":
        return "{}"
    text = decode_string(value)
    return text if text is not None and text.lstrip().startswith("{") else value
