"""Whether engines can follow a JSON schema, and if not, which place in it is the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from operator import attrgetter
from threading import Lock
from typing import Any, NamedTuple

import msgspec
from cachetools import LRUCache, cached
from llguidance import LLMatcher

from adapter.grammar.strict_mode import Fault, Path, strict_fault

LONGEST = 256 * 1024
"""Characters of a schema as JSON: what nodes take."""

_SEARCHED = 512 * 1024
"""Characters of schemas that are tried to find the place of one fault."""

# What changes how llguidance reads a schema, and what no answer needs: white space without end.
_GUIDANCE = "x-guidance"
_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}

_MAPS = ("$defs", "definitions", "properties", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")

# llguidance's words for a keyword that it does not know; they are about its own options.
_UNKNOWN = re.compile("Unimplemented keys|oneOf constraints are not supported")

_MAX_CACHED = 16 * 2**20
"""Characters of schemas whose results are cached."""


class _Result(NamedTuple):
    fault: Fault | None
    size: int


# Large requests are checked in threads.
_cache: LRUCache[tuple[str, bool], _Result] = LRUCache(_MAX_CACHED, getsizeof=attrgetter("size"))
_cache_lock = Lock()


def written(schema: Mapping[str, Any]) -> str:
    """The schema as JSON, for any engine."""
    return msgspec.json.encode({key: value for key, value in schema.items() if key != _GUIDANCE}).decode()


def in_lark(schema: Mapping[str, Any]) -> str:
    """The schema as a Lark expression, with bounds on white space."""
    return f"%json {msgspec.json.encode({**schema, _GUIDANCE: _OPTIONS}).decode()}"


def is_checked(text: str, strict: bool) -> bool:
    """Whether `fault` will know at once."""
    return (text, strict) in _cache


def fault(schema: Mapping[str, Any], text: str, strict: bool = False) -> Fault | None:
    """The first thing in `schema`, which is `text` as `written`, that engines cannot follow, or that OpenAI's rules
    for strict schemas forbid. Takes up to a second for a large one, without the interpreter lock."""
    return _checked(schema, text, strict).fault


@cached(_cache, key=lambda _, text, strict: (text, strict), lock=_cache_lock)
def _checked(schema: Mapping[str, Any], text: str, strict: bool) -> _Result:
    return _Result((strict_fault(schema) if strict else None) or _find(schema, text), len(text))


def _find(schema: Mapping[str, Any], text: str) -> Fault | None:
    if len(text) > LONGEST:
        return Fault((), f"the schema has {len(text)} characters, but the maximum is {LONGEST}")
    reason = _reason(text)
    if reason is None:
        return None
    path = _Search(schema, reason).path(schema)
    return Fault(path, f"'{path[-1]}' is not supported" if path and _UNKNOWN.match(reason) else reason)


def _reason(text: str) -> str | None:
    """Why llguidance cannot follow this. Its errors go on for pages: the first line says what is wrong."""
    try:
        wrong, messages = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_json_schema(text))
    except ValueError as error:
        wrong, messages = True, [str(error)]
    return " ".join(messages[0].split("\n")[0].split())[:200] if wrong else None


class _Search:
    """For the smallest part of a schema that fails for the same reason as the whole."""

    def __init__(self, root: Mapping[str, Any], reason: str) -> None:
        self._shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
        self._reason = reason
        self._left = _SEARCHED

    def path(self, schema: Mapping[str, Any]) -> Path:
        for step, part in _parts(schema):
            if self._fails(part):
                return (*step, *self.path(part))
        # `type` last, since the others mean little without it.
        for key in sorted(schema, key="type".__eq__):
            if not self._fails({name: value for name, value in schema.items() if name != key}):
                return (key,)
        return ()

    def _fails(self, schema: Mapping[str, Any]) -> bool:
        text = msgspec.json.encode({**self._shared, **schema}).decode()
        self._left -= len(text)
        return self._left > 0 and _reason(text) == self._reason


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for key in _MAPS:
        if isinstance(schema.get(key), Mapping):
            yield from (((key, name), part) for name, part in schema[key].items() if isinstance(part, Mapping))
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            yield from (((key, index), part) for index, part in enumerate(schema[key]) if isinstance(part, Mapping))
    for key in _SINGLE:
        if isinstance(schema.get(key), Mapping):
            yield (key,), schema[key]
