"""OpenAI's rules for schemas with `strict: true`.

From https://platform.openai.com/docs/guides/structured-outputs#supported-schemas, and the words of its errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Path = tuple[str | int, ...]

MOST_PROPERTIES, MOST_LEVELS, MOST_VALUES, LONGEST_NAMES = 5000, 10, 1000, 120_000

_ANNOTATIONS = frozenset({"description", "title", "$schema", "$id", "$comment"})
_PERMITTED = _ANNOTATIONS | {
    *("type", "enum", "const", "anyOf", "$ref", "$defs", "definitions"),
    *("properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
    *("pattern", "format", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_KINDS = frozenset({"type", "enum", "const", "anyOf", "$ref"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})


class Fault(NamedTuple):
    """`path` leads from the schema to what is wrong; `reason` is a sentence without its full stop."""

    path: Path
    reason: str


def strict_fault(schema: Mapping[str, Any]) -> Fault | None:
    """The first place that breaks the rules."""
    if schema.get("type") != "object":
        return Fault(("type",), "the schema must have type 'object' and must not have 'anyOf' at the top level")
    try:
        return next(_faults(schema, (), 0), None) or _too_much(schema)
    except RecursionError:
        return Fault((), "the schema is nested too deeply")


def _faults(schema: Any, path: Path, level: int) -> Iterator[Fault]:
    if not isinstance(schema, Mapping):
        yield Fault(path, "a schema must be an object")
        return
    if level > MOST_LEVELS:
        yield Fault(path, f"the schema must not be nested more than {MOST_LEVELS} levels deep")
        return
    yield from _keywords(schema, path)
    properties = schema.get("properties")
    if schema.get("type") == "object" or properties is not None:
        yield from _object(schema, properties, path)
    for step, part, deeper in _parts(schema):
        yield from _faults(part, (*path, *step), level + deeper)


def _keywords(schema: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    for key in schema:
        if key not in _PERMITTED:
            yield Fault((*path, key), f"'{key}' is not permitted")
    if "$ref" in schema and (beside := [key for key in schema if key not in ("$ref", "$defs", "definitions")]):
        yield Fault((*path, beside[0]), f"'$ref' must not have sibling keywords, but got '{beside[0]}'")
    if not _KINDS & schema.keys():
        yield Fault(path, "the schema must have a 'type' key")
    if schema.get("type") == "array" and "items" not in schema:
        yield Fault(path, "an array schema must have an 'items' key")
    if "format" in schema and not (isinstance(schema["format"], str) and schema["format"] in _FORMATS):
        reason = f"format '{str(schema['format'])[:64]}' is not supported"
        yield Fault((*path, "format"), f"{reason}. Supported formats are: {', '.join(sorted(_FORMATS))}")


def _object(schema: Mapping[str, Any], properties: object, path: Path) -> Iterator[Fault]:
    if schema.get("additionalProperties") is not False:
        yield Fault(
            (*path, "additionalProperties"), "'additionalProperties' is required to be supplied and to be false"
        )
    required = schema.get("required", [])
    names = properties if isinstance(properties, Mapping) else {}
    missing = next((name for name in names if not isinstance(required, list) or name not in required), None)
    if missing is not None:
        reason = "'required' is required to be supplied and to be an array including every key in properties"
        yield Fault((*path, "required"), f"{reason}. Missing '{missing}'")


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any, int]]:
    """Each with how many levels deeper it is."""
    for key in ("$defs", "definitions", "properties"):
        if isinstance(schema.get(key), Mapping):
            yield from (((key, name), part, int(key == "properties")) for name, part in schema[key].items())
    if isinstance(schema.get("anyOf"), list):
        yield from ((("anyOf", index), part, 0) for index, part in enumerate(schema["anyOf"]))
    if "items" in schema:
        yield ("items",), schema["items"], 1


def _too_much(schema: Mapping[str, Any]) -> Fault | None:
    properties = values = names = 0
    for part in _all(schema):
        listed = part["enum"] if isinstance(part.get("enum"), list) else []
        own = part["properties"] if isinstance(part.get("properties"), Mapping) else {}
        properties += len(own)
        values += len(listed)
        names += sum(len(text) for text in (*own, *listed) if isinstance(text, str))
    for count, most, what in (
        (properties, MOST_PROPERTIES, "properties"),
        (values, MOST_VALUES, "enum values"),
        (names, LONGEST_NAMES, "characters in names and enum values"),
    ):
        if count > most:
            return Fault((), f"the schema has {count} {what}, but the maximum is {most}")
    return None


def _all(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for _, part, _ in _parts(schema):
        yield from _all(part)
