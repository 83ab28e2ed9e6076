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
from adapter.grammar.references import References, steps_of
from adapter.grammar.strict_mode import Path

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

# Maximum number of faults that are searched for after everything known was left out: each takes many compilations.
_MAX_REPAIRS = 8
_MAX_PATTERN = 4096
# Maximum total length of the schemas whose results are cached, in characters.
_MAX_CACHED = 16 * 2**20
_MAX_DEPTH = 100
_MAX_NUMBER = 2**53
# Total length of the schemas that are compiled only to tell whether alternatives exclude one another, in characters.
_COMPILE_BUDGET = 512 * 1024

_TYPES = frozenset({"string", "integer", "number", "boolean", "null", "object", "array"})
_COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
_LIMITS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SINGLE = frozenset({"items", "additionalProperties", "additionalItems"})
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
# Keywords that describe parts of an object elsewhere, wherever they are.
_ELSEWHERE = frozenset({"allOf", "if", "dependentSchemas", "dependencies", "unevaluatedProperties"})
# Keywords that say something of properties that are not listed.
_OF_OTHERS = frozenset(
    {"additionalProperties", "patternProperties", "minProperties", "propertyNames", "dependentRequired"}
)
_UNSATISFIABLE = re.compile("required property '(.*)' is unsatisfiable", re.DOTALL)
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
    if len(text) > MAX_SCHEMA_LENGTH:
        return RelaxedSchema(_ANY_OBJECT, ((),), len(text))
    return _relaxed(schema)._replace(size=len(text))


def _relaxed(schema: Mapping[str, Any]) -> RelaxedSchema:
    try:
        relaxing = _Relaxing(schema)
        relaxed = relaxing.root()
    except RecursionError:
        return RelaxedSchema(_ANY_OBJECT, ((),))
    return _repaired(relaxed, relaxing.dropped)


def _repaired(schema: Mapping[str, Any], dropped: list[Path]) -> RelaxedSchema:
    """Leave out what the compiler still rejects."""
    for repairs in range(_MAX_REPAIRS + 1):
        text = encode_schema(schema)
        if len(text) > MAX_SCHEMA_LENGTH:
            break
        if (error := compile_error(text)) is None:
            return RelaxedSchema(schema, tuple(dropped))
        if repairs == _MAX_REPAIRS or not (path := CauseSearch(schema, error).path(schema)):
            break
        if path[-1] == "required" and (found := _UNSATISFIABLE.search(error)) is not None:
            # The name remains required, and may have any value.
            path = (*path[:-1], "properties", found[1])
        schema = without(schema, path)
        if path[-1] in ("properties", "patternProperties"):
            # Else what was left out would be forbidden.
            schema = without(schema, (*path[:-1], "additionalProperties"))
        dropped.append(path)
    return RelaxedSchema(_ANY_OBJECT, ((),))


def without(schema: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a copy of `schema` without the keyword at `path`. If a subschema is there it becomes true, which accepts
    anything.
    """
    keyword, *rest = path
    if not rest:
        return {key: value for key, value in schema.items() if key != keyword}
    value = schema.get(str(keyword), {})
    if keyword in _SINGLE:
        return {**schema, str(keyword): without(value, tuple(rest))}
    step, *inner = rest
    changed: Any = without(value[step], tuple(inner)) if inner else True
    if isinstance(value, list):
        return {**schema, str(keyword): [changed if index == step else item for index, item in enumerate(value)]}
    return {**schema, str(keyword): {**value, step: changed}}


class _Relaxing:
    """One relaxation of the schema `root`, which collects what it leaves out in `dropped`."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.dropped: list[Path] = []
        self._root = root
        self._references = References(root)
        # Targets of references outside of the definitions, by their names there.
        self._moved: dict[str, Any] = {}
        # Number of subschemas around the current one that have a base of their own for references.
        self._bases = 0
        self._budget = _COMPILE_BUDGET
        self._closes = not _is_composed(root)

    def root(self) -> dict[str, Any]:
        """Return the relaxed form of the whole."""
        relaxed: dict[str, Any] = self.schema(self._root, ())
        if self._moved:
            relaxed["$defs"] = {**relaxed.get("$defs", {}), **self._moved}
        return relaxed

    def schema(self, given: Any, path: Path) -> Any:
        """Return the relaxed form of the schema at `path`."""
        if isinstance(given, bool):
            return given
        if not isinstance(given, Mapping) or len(path) > _MAX_DEPTH:
            if given is not None:
                self.dropped.append(path)
            return True
        kept: dict[str, Any] = {}
        has_base = bool(path) and isinstance(given.get("$id"), str)
        self._bases += has_base
        for key, value in _without_draft_4_limits(given).items():
            if value is None and key != "const":
                # Go and Java encoders write a null for what is absent.
                continue
            self._add(kept, key, value, (*path, key))
        self._bases -= has_base
        if "oneOf" in kept:
            self._replace_one_of(kept, path)
        if given.get("nullable") is True:
            _add_null(kept)
        self._open_or_close(kept, given)
        return kept

    def _open_or_close(self, kept: dict[str, Any], given: Mapping[str, Any]) -> None:
        """Decide whether an object may have properties that are not listed."""
        if any(_count_of(given, key) > _count_of(kept, key) for key in ("properties", "patternProperties")):
            # What was left out permitted some.
            kept.pop("additionalProperties", None)
            return
        says_nothing = "properties" in kept and all(given.get(key) is None for key in _OF_OTHERS)
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
            self._add_checked(kept, key, self._reference(value), path)
        elif key in _MAPS or key in _LISTS or key in _SINGLE or key in _UNSUPPORTED:
            self.dropped.append(path)

    def _reference(self, reference: Any) -> str | None:
        """Return a reference to the relaxed form of what `reference` refers to; None if a grammar cannot follow it."""
        if self._bases or not self._references.can_follow(reference):
            return None
        target: str = reference
        steps = steps_of(target)
        if not steps or (len(steps) == 2 and steps[0] in ("$defs", "definitions")):
            return target
        # Only definitions are in the result at the same place, and unchanged in their meaning.
        name = "/".join(steps)
        if name not in self._moved:
            self._moved[name] = True
            self._moved[name] = self.schema(self._references.resolve(target), tuple(steps))
        return "#/$defs/" + name.replace("~", "~0").replace("/", "~1")

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
        text = encode_schema({**shared, "oneOf": options})
        self._budget -= len(text)
        if self._budget > 0 and compile_error(text) is None:
            return
        self.dropped.append((*path, "oneOf"))
        del kept["oneOf"]
        if "anyOf" in kept:
            kept["allOf"] = [*kept.get("allOf", []), {"anyOf": options}]
        else:
            kept["anyOf"] = options


def _add_null(schema: dict[str, Any]) -> None:
    """Allow null, as OpenAPI 3.0's `nullable` does."""
    kind, values = schema.get("type"), schema.get("enum")
    if kind is not None:
        schema["type"] = [*(kind if isinstance(kind, list) else [kind]), "null"]
    if values is not None and None not in values:
        schema["enum"] = [*values, None]


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
    is_composed = bool(schema.keys() & _ELSEWHERE or (composing and schema.keys() & _DESCRIBING))
    return is_composed or any(map(_is_composed, schema.values()))


def _count_of(schema: Mapping[str, Any], keyword: str) -> int:
    value = schema.get(keyword)
    return 0 if value is None else len(value) if isinstance(value, Mapping) else 1


# Checks of a keyword's value: each returns the value for the grammar, None if it has none.


def _type(value: Any) -> Any:
    # Gemini writes them in capitals.
    names = [str(name).lower() for name in (value if isinstance(value, list) else [value]) if name is not None]
    if not names or not _TYPES.issuperset(names):
        return None
    return names if isinstance(value, list) else names[0]


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def _number(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Beyond that, as the limits of a 64-bit integer, the compiler counts wrong.
    return value if is_number and abs(value) <= _MAX_NUMBER else None


def _positive(value: Any) -> Any:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _names(value: Any) -> Any:
    return value if isinstance(value, list) and all(isinstance(name, str) for name in value) else None


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
    return compile_error(msgspec.json.encode({"type": "string", keyword: value}).decode(), is_part=True) is None


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
}
