"""Relaxation of JSON schemas that are followed as far as possible: those without `strict`.

Nobody can change the schema of a third party's tool, so what a grammar cannot follow is left out, at its place, and
reported. Whatever fits the schema fits the relaxed one, with one exception: objects that list their properties, and say
nothing of others, get no others. Models would add some that the client does not know, and xgrammar does the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from operator import attrgetter
from threading import Lock
from typing import Any, NamedTuple

import msgspec
from cachetools import LRUCache, cached

from adapter.grammar.compile_check import compile_error
from adapter.grammar.json_schema import MAX_SCHEMA_LENGTH, CauseSearch, encode_schema
from adapter.grammar.references import can_follow
from adapter.grammar.strict_mode import Path

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

# Maximum number of faults that are searched for after everything known was left out: each takes many compilations.
_MAX_REPAIRS = 8
_MAX_PATTERN = 4096
# Maximum total length of the schemas whose results are cached, in characters.
_MAX_CACHED = 16 * 2**20
_MAX_DEPTH = 100

_TYPES = frozenset({"string", "integer", "number", "boolean", "null", "object", "array"})
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
_LIMITS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SINGLE = frozenset({"items", "additionalProperties", "additionalItems"})
_TEXTS = frozenset({"$id", "$anchor"})
# Keywords that no grammar can follow: JSON Schema 2020-12 and its drafts. All others are annotations, and mean nothing.
_UNSUPPORTED = frozenset(
    {
        *("uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems"),
        *("propertyNames", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"),
        *("if", "then", "else", "not", "$dynamicRef", "$recursiveRef"),
    }
)
# Keywords that describe an object in several places, if there are others beside them.
_COMPOSING = frozenset({"allOf", "anyOf", "oneOf", "$ref"})
_DESCRIBING = frozenset({"properties", "patternProperties", "required"})
_OTHERS = frozenset({"additionalProperties", "patternProperties"})
_UNICODE_ESCAPE = re.compile(r"((?<!\\)(?:\\\\)*)\\u(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{4}))")


class RelaxedSchema(NamedTuple):
    """A schema that a grammar can follow, and the places of what was left out of it. `size` is that of the original."""

    schema: Mapping[str, Any]
    dropped: tuple[Path, ...]
    size: int = 0


# Large requests are processed in threads.
_cache: LRUCache[str, RelaxedSchema] = LRUCache(_MAX_CACHED, getsizeof=attrgetter("size"))
_cache_lock = Lock()


def is_cached(text: str) -> bool:
    """Return True if the result of `relax` is cached."""
    return text in _cache


@cached(_cache, key=lambda _, text: text, lock=_cache_lock)
def relax(schema: Mapping[str, Any], text: str) -> RelaxedSchema:
    """Return `schema` without what no grammar can follow; any JSON object if that is not enough. `text` is the schema
    as JSON.

    Annotations are left out as well, unreported. Takes up to a few seconds for a large schema.
    """
    return _relaxed(schema)._replace(size=len(text))


def _relaxed(schema: Mapping[str, Any]) -> RelaxedSchema:
    try:
        relaxing = _Relaxing(schema)
        relaxed = relaxing.schema(schema, ())
    except RecursionError:
        return RelaxedSchema(_ANY_OBJECT, ((),))
    return _repaired(relaxed, relaxing.dropped)


def _repaired(schema: Mapping[str, Any], dropped: list[Path]) -> RelaxedSchema:
    """Leave out what the compiler still rejects."""
    for _ in range(_MAX_REPAIRS):
        text = encode_schema(schema)
        if len(text) > MAX_SCHEMA_LENGTH:
            break
        if (error := compile_error(text)) is None:
            return RelaxedSchema(schema, tuple(dropped))
        if not (path := CauseSearch(schema, error).path(schema)):
            break
        schema = without(schema, path)
        dropped.append(path)
    return RelaxedSchema(_ANY_OBJECT, ((),))


def without(schema: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a copy of `schema` without the keyword at `path`. If a subschema is there it becomes true, which accepts
    anything.
    """
    keyword, *rest = path
    if not rest:
        return {key: value for key, value in schema.items() if key != keyword}
    value = schema[str(keyword)]
    if keyword in _SINGLE:
        return {**schema, str(keyword): without(value, tuple(rest))}
    step, *inner = rest
    changed = without(value[step], tuple(inner)) if inner else True
    if isinstance(value, list):
        return {**schema, str(keyword): [changed if index == step else item for index, item in enumerate(value)]}
    return {**schema, str(keyword): {**value, step: changed}}


class _Relaxing:
    """One relaxation of the schema `root`, which collects what it leaves out in `dropped`."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.dropped: list[Path] = []
        self._root = root
        self._closes = not _is_composed(root)

    def schema(self, given: Any, path: Path) -> Any:
        """Return the relaxed form of the schema at `path`."""
        if isinstance(given, bool):
            return given
        if not isinstance(given, Mapping) or len(path) > _MAX_DEPTH:
            if given is not None:
                self.dropped.append(path)
            return True
        kept: dict[str, Any] = {}
        for key, value in _without_draft_4_limits(given).items():
            if value is None and key != "const":
                # Go and Java encoders write a null for what is absent.
                continue
            self._add(kept, key, value, (*path, key))
        if "oneOf" in kept:
            self._replace_one_of(kept, path)
        self._open_or_close(kept, given)
        return kept

    def _open_or_close(self, kept: dict[str, Any], given: Mapping[str, Any]) -> None:
        """Decide whether an object may have properties that are not listed."""
        if any(_count_of(given, key) > _count_of(kept, key) for key in ("properties", "patternProperties")):
            # What was left out permitted some.
            kept.pop("additionalProperties", None)
            return
        says_nothing = "properties" in kept and all(given.get(key) is None for key in _OTHERS)
        # A name that is required, but not listed, must remain possible.
        if self._closes and says_nothing and kept["properties"].keys() >= set(kept.get("required", ())):
            kept["additionalProperties"] = False

    def _add(self, kept: dict[str, Any], key: str, value: Any, path: Path) -> None:
        if key in _MAPS and isinstance(value, Mapping):
            kept[key] = {name: self.schema(each, (*path, name)) for name, each in self._entries(key, value, path)}
        elif (key in _LISTS or key == "items") and isinstance(value, list) and value:
            kept[key] = [self.schema(each, (*path, index)) for index, each in enumerate(value)]
        elif key in _SINGLE and isinstance(value, Mapping | bool):
            kept[key] = self.schema(value, path)
        elif (check := _CHECKS.get(key)) is not None:
            self._add_checked(kept, key, check(value), path)
        elif key == "$ref":
            self._add_checked(kept, key, value if can_follow(self._root, value) else None, path)
        elif key in _MAPS or key in _LISTS or key in _SINGLE or key in _UNSUPPORTED:
            self.dropped.append(path)

    def _add_checked(self, kept: dict[str, Any], key: str, value: Any, path: Path) -> None:
        if value is None and key != "const":
            self.dropped.append(path)
        else:
            kept[key] = value

    def _entries(self, key: str, value: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
        for name, each in value.items():
            kept_name = _pattern(name) if key == "patternProperties" else name
            if kept_name is None:
                self.dropped.append((*path, name))
            else:
                yield kept_name, each

    def _replace_one_of(self, kept: dict[str, Any], path: Path) -> None:
        """Replace oneOf by anyOf, unless its alternatives are known to exclude one another."""
        shared = {key: self._root[key] for key in ("$defs", "definitions") if isinstance(self._root.get(key), Mapping)}
        options = kept["oneOf"]
        if compile_error(encode_schema({**shared, "oneOf": options})) is None:
            return
        self.dropped.append((*path, "oneOf"))
        del kept["oneOf"]
        if "anyOf" in kept:
            kept["allOf"] = [*kept.get("allOf", []), {"anyOf": options}]
        else:
            kept["anyOf"] = options


def _without_draft_4_limits(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema with exclusive limits as numbers: OpenAPI 3.0 and pydantic 1 write a boolean."""
    found = dict(schema)
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(is_exclusive := found.get(exclusive), bool):
            del found[exclusive]
            if is_exclusive and inclusive in found:
                found[exclusive] = found.pop(inclusive)
    return found


def _is_composed(schema: Any) -> bool:
    """Return whether some object of the schema may be described in several places."""
    if isinstance(schema, list):
        return any(map(_is_composed, schema))
    if not isinstance(schema, Mapping):
        return False
    composing = schema.keys() & _COMPOSING
    is_composed = "allOf" in composing or bool(composing and schema.keys() & _DESCRIBING)
    return is_composed or any(map(_is_composed, schema.values()))


def _count_of(schema: Mapping[str, Any], keyword: str) -> int:
    value = schema.get(keyword)
    return 0 if value is None else len(value) if isinstance(value, Mapping) else 1


# Checks of a keyword's value: each returns the value for the grammar, None if it has none.


def _type(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    return value if names and all(isinstance(name, str) and name in _TYPES for name in names) else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _positive(value: Any) -> Any:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _names(value: Any) -> Any:
    return value if isinstance(value, list) and all(isinstance(name, str) for name in value) else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _pattern(value: Any) -> str | None:
    """Return a pattern that the compiler accepts, with ECMAScript's escapes of characters as it writes them."""
    if not isinstance(value, str) or len(value) > _MAX_PATTERN:
        return None
    pattern = _UNICODE_ESCAPE.sub(lambda found: f"{found[1]}\\x{{{found[2] or found[3]}}}", value)
    return pattern if _compiles("pattern", pattern) else None


def _format(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) <= 64 and _compiles("format", value) else None


@lru_cache(maxsize=512)
def _compiles(keyword: str, value: str) -> bool:
    return compile_error(msgspec.json.encode({"type": "string", keyword: value}).decode()) is None


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "type": _type,
    "enum": lambda value: value if isinstance(value, list) and value else None,
    "const": lambda value: value,
    "required": _names,
    "pattern": _pattern,
    "format": _format,
    "multipleOf": _positive,
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(_LIMITS - {"multipleOf"}, _number),
    **dict.fromkeys(_TEXTS, _text),
}
