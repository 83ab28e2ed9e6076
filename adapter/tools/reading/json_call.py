"""Parsing of calls in JSON, `{"name": ..., "arguments": {...}}`, and of arguments alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from adapter.tools.reading.json_value import JsonValue
from adapter.tools.reading.source import Source
from adapter.tools.reading.text import Reading

_SENTENCE_END = (".", ":", "!", "?")


class _CallState:
    """State of a call while it is parsed."""

    name = ""
    arguments: str | None = None
    started = False

    def __init__(self, name_key: str, arguments_keys: Sequence[str], known_only: bool) -> None:
        self.name_key = name_key
        self.arguments_keys = arguments_keys
        self.known_only = known_only


def json_call(source: Source, name_key: str, arguments_keys: Sequence[str], known_only: bool = False) -> Reading[bool]:
    """Parse one call, and emit its arguments as they arrive once the name is known. Arguments before the name, or in a
    string, are emitted when the object is complete. Missing arguments are `{}`, and other members are ignored.

    Returns False, without emitting anything, if this is not a call. With `known_only` the name must be that of a tool.
    """
    call = _CallState(name_key, arguments_keys, known_only)
    if not (yield from source.literal("{")):
        return False
    while True:
        yield from source.space()
        member = yield from _member(source, call)
        yield from source.space()
        end = member and (yield from source.literal(",", "}"))
        if end == "}":
            return _finish(source, call)
        if not end:
            if call.started:
                source.abandon_call()
            return call.started or source.begin_cut_call(call.name)


def named_call(source: Source, name: str) -> Reading[bool]:
    """Parse the arguments of a call to `name`, an object that starts here. Returns False, without emitting anything, if
    this is not a call.
    """
    if not is_name(name) or (yield from source.peek()) != "{":
        return False
    source.begin_call(name)
    yield from source.emit_object()
    return True


def keyed_call(source: Source) -> Reading[bool]:
    """Parse a call `{"name": {...}}`. Returns False, without emitting anything, if this is not a call."""
    if not (yield from source.literal("{")):
        return False
    yield from source.space()
    name = decode_string((yield from source.value()))
    yield from source.space()
    if name is None or not (yield from source.literal(":")):
        return False
    yield from source.space()
    if not (yield from named_call(source, name)):
        return False
    yield from source.space()
    yield from source.literal("}")
    return True


def call_start(name_key: str, names: str) -> str:
    """Return a regular expression for what follows the brace of an object that `begins_call`. `names` is an expression
    for the names of the tools, in quotes.
    """
    return (
        rf"\s*(\x{{22}}type\x{{22}}\s*:\s*\x{{22}}function\x{{22}}\s*,\s*)?\x{{22}}{name_key}\x{{22}}\s*:\s*({names})"
    )


def begins_call(source: Source, name_key: str) -> Reading[bool]:
    """Return True if a whole object with the name of a tool as its first member, or after its type, starts here, and is
    not part of a sentence or of a larger JSON value. Reads it, and waits for more text only as long as it may be one.
    """
    start, names = source.at, [json.dumps(name) for name in source.tools or ()]
    if not (source.previous.isspace() or source.previous in _SENTENCE_END) or not names:
        return False
    key = json.dumps(name_key)
    yield from source.literal("{")
    yield from source.space()
    found = yield from source.literal(key, '"type"')
    if found == '"type"':
        found = (yield from source.literal(key)) if (yield from source.tokens(":", '"function"', ",")) else ""
    if not (found and (yield from source.tokens(":")) and (yield from source.literal(*names))):
        return False
    source.at = start
    text = yield from source.scan(JsonValue())
    yield from source.space()
    return text is not None and is_object(text) and (yield from source.peek()) not in (",", "]", "}", "`")


def is_object(text: str) -> bool:
    """Return True if `text` is a valid JSON object."""
    try:
        msgspec.json.decode(text, type=dict)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False
    return True


def _member(source: Source, call: _CallState) -> Reading[bool]:
    key = decode_string((yield from source.value()))
    yield from source.space()
    if key is None or not (yield from source.literal(":")):
        return False
    yield from source.space()
    if key in call.arguments_keys and call.name and not call.started and (yield from source.peek()) == "{":
        call.started = True
        source.begin_call(call.name)
        yield from source.emit_object()
        return True
    value = yield from source.value()
    if key == call.name_key and not call.name:
        call.name = decode_string(value) or ""
        return is_name(call.name) and (not call.known_only or source.knows(call.name))
    if key in call.arguments_keys:
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
