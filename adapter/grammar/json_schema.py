"""Check of JSON schemas for features that engines do not support, with the path of the unsupported part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from threading import Lock
from typing import Any, NamedTuple

import msgspec
from cachetools import LRUCache, cached

from adapter.grammar.compile_check import UNSUPPORTED, compile_error
from adapter.grammar.references import References
from adapter.grammar.strict_mode import Path, SchemaIssue, find_strict_issue

MAX_SCHEMA_LENGTH = 256 * 1024
"""Maximum length of a schema as JSON, in characters: the limit of nodes."""

_SEARCH_BUDGET = 512 * 1024
"""Maximum total length of the schemas that are compiled to find the cause of one issue, in characters."""

# llguidance's keyword for its own options. They forbid unlimited white space, which no answer needs.
_GUIDANCE = "x-guidance"
_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}

_MAPS = ("$defs", "definitions", "properties", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")

_MAX_CACHED = 16 * 2**20
"""Maximum total length of the schemas whose results are cached, in characters."""


class _Result(NamedTuple):
    issue: SchemaIssue | None
    size: int


# Large requests are checked in threads.
_cache: LRUCache[tuple[str, bool], _Result] = LRUCache(_MAX_CACHED, getsizeof=attrgetter("size"))
_cache_lock = Lock()


def encode_schema(schema: Mapping[str, Any]) -> str:
    """Return the schema as JSON that every engine can read, without options of llguidance."""
    return msgspec.json.encode({key: value for key, value in schema.items() if key != _GUIDANCE}).decode()


def lark_expression(schema: Mapping[str, Any]) -> str:
    """Return the schema as an expression in llguidance's Lark dialect, which limits white space."""
    return f"%json {msgspec.json.encode({**schema, _GUIDANCE: _OPTIONS}).decode()}"


def is_cached(text: str, strict: bool) -> bool:
    """Return True if the result of `find_issue` is cached."""
    return (text, strict) in _cache


def find_issue(schema: Mapping[str, Any], text: str, strict: bool = False) -> SchemaIssue | None:
    """Return the first issue of `schema`, or None. Issues are features that engines do not support, and with `strict`
    violations of OpenAI's rules for strict schemas. `text` is the result of `encode_schema`.

    Takes up to a second for a large schema, without the GIL.
    """
    return _check(schema, text, strict).issue


@cached(_cache, key=lambda _, text, strict: (text, strict), lock=_cache_lock)
def _check(schema: Mapping[str, Any], text: str, strict: bool) -> _Result:
    return _Result((find_strict_issue(schema) if strict else None) or _find_unsupported(schema, text), len(text))


def _find_unsupported(schema: Mapping[str, Any], text: str) -> SchemaIssue | None:
    if len(text) > MAX_SCHEMA_LENGTH:
        return SchemaIssue((), f"the schema has {len(text)} characters, but the maximum is {MAX_SCHEMA_LENGTH}")
    error = compile_error(text)
    if error is None:
        # The compiler finds these only when it comes to them.
        path = _endless_reference(schema)
        return None if path is None else SchemaIssue(path, "the schema refers to itself without end")
    path = CauseSearch(schema, error).path(schema)
    return SchemaIssue(path, f"'{path[-1]}' is not supported" if path and UNSUPPORTED.match(error) else error)


class CauseSearch:
    """Search for the smallest part of a schema that fails with the same error as the whole."""

    def __init__(self, root: Mapping[str, Any], error: str) -> None:
        self._shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
        self._error = error
        self._remaining = _SEARCH_BUDGET

    def path(self, schema: Mapping[str, Any]) -> Path:
        """Return the path of the cause within `schema`, which fails."""
        for step, subschema in _subschemas(schema):
            if self._fails(subschema):
                return (*step, *self.path(subschema))
        # `type` is tried last, since other keywords mean little without it.
        for key in sorted(schema, key="type".__eq__):
            if not self._fails({name: value for name, value in schema.items() if name != key}):
                return (key,)
        return ()

    def _fails(self, schema: Mapping[str, Any]) -> bool:
        text = msgspec.json.encode({**self._shared, **schema}).decode()
        self._remaining -= len(text)
        return self._remaining > 0 and compile_error(text) == self._error


def _endless_reference(root: Mapping[str, Any]) -> Path | None:
    """Return the path of a reference that leads only back to itself, if there is one."""
    references = References(root)
    pending: list[tuple[Path, Mapping[str, Any]]] = [((), root)]
    while pending:
        path, schema = pending.pop()
        if references.is_endless(schema.get("$ref")):
            return (*path, "$ref")
        pending += [((*path, *step), subschema) for step, subschema in reversed([*_subschemas(schema)])]
    return None


def _subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for key in _MAPS:
        if isinstance(schema.get(key), Mapping):
            yield from (((key, name), value) for name, value in schema[key].items() if isinstance(value, Mapping))
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            yield from (((key, index), value) for index, value in enumerate(schema[key]) if isinstance(value, Mapping))
    for key in _SINGLE:
        if isinstance(schema.get(key), Mapping):
            yield (key,), schema[key]
