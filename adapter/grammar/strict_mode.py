"""OpenAI's rules for JSON schemas with `strict: true`.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas, and the messages of its errors, as
of November 2026 (annotations such as `default` are accepted since August 2026).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Path = tuple[str | int, ...]

MAX_PROPERTIES, MAX_LEVELS, MAX_ENUM_VALUES = 5000, 10, 1000
MAX_NAMES_LENGTH = 120_000
"""Maximum total length of property names and enum values, in characters."""

# Keywords without effect, as are all that begin with `x-`.
_ANNOTATIONS = frozenset(
    {
        *("description", "title", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment"),
    }
)
_PERMITTED = _ANNOTATIONS | {
    *("type", "enum", "const", "anyOf", "$ref", "$defs", "definitions"),
    *("properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
    *("pattern", "format", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_TYPE_KEYWORDS = frozenset({"type", "enum", "const", "anyOf", "$ref"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})


class SchemaIssue(NamedTuple):
    """Reason why a schema is rejected.

    `path` leads from the root of the schema to the cause. `reason` is a sentence without a full stop.
    """

    path: Path
    reason: str


def find_strict_issue(schema: Mapping[str, Any]) -> SchemaIssue | None:
    """Return the first violation of the rules, or None."""
    if schema.get("type") != "object":
        return SchemaIssue(("type",), "the schema must have type 'object' and must not have 'anyOf' at the top level")
    try:
        return next(_issues(schema, (), 0), None) or _find_size_issue(schema)
    except RecursionError:
        return SchemaIssue((), "the schema is nested too deeply")


def _issues(schema: Any, path: Path, level: int) -> Iterator[SchemaIssue]:
    if not isinstance(schema, Mapping):
        yield SchemaIssue(path, "a schema must be an object")
        return
    if level > MAX_LEVELS:
        yield SchemaIssue(path, f"the schema must not be nested more than {MAX_LEVELS} levels deep")
        return
    yield from _keyword_issues(schema, path)
    properties = schema.get("properties")
    if schema.get("type") == "object" or properties is not None:
        yield from _object_issues(schema, properties, path)
    for step, subschema, levels in _subschemas(schema):
        yield from _issues(subschema, (*path, *step), level + levels)


def _keyword_issues(schema: Mapping[str, Any], path: Path) -> Iterator[SchemaIssue]:
    for key in schema:
        if key not in _PERMITTED and not key.startswith("x-"):
            yield SchemaIssue((*path, key), f"'{key}' is not permitted")
    if "$ref" in schema and (siblings := [key for key in schema if not _may_accompany_ref(key)]):
        yield SchemaIssue((*path, siblings[0]), f"'$ref' must not have sibling keywords, but got '{siblings[0]}'")
    if not _TYPE_KEYWORDS & schema.keys():
        yield SchemaIssue(path, "the schema must have a 'type' key")
    if schema.get("type") == "array" and "items" not in schema:
        yield SchemaIssue(path, "an array schema must have an 'items' key")
    if "format" in schema and not (isinstance(schema["format"], str) and schema["format"] in _FORMATS):
        reason = f"format '{str(schema['format'])[:64]}' is not supported"
        yield SchemaIssue((*path, "format"), f"{reason}. Supported formats are: {', '.join(sorted(_FORMATS))}")


def _may_accompany_ref(key: str) -> bool:
    return key in ("$ref", "$defs", "definitions") or key in _ANNOTATIONS or key.startswith("x-")


def _object_issues(schema: Mapping[str, Any], properties: object, path: Path) -> Iterator[SchemaIssue]:
    if schema.get("additionalProperties") is not False:
        yield SchemaIssue(
            (*path, "additionalProperties"), "'additionalProperties' is required to be supplied and to be false"
        )
    required = schema.get("required", [])
    names = properties if isinstance(properties, Mapping) else {}
    missing = next((name for name in names if not isinstance(required, list) or name not in required), None)
    if missing is not None:
        reason = "'required' is required to be supplied and to be an array including every key in properties"
        yield SchemaIssue((*path, "required"), f"{reason}. Missing '{missing}'")


def _subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any, int]]:
    """Yield the path, the subschema and the number of nesting levels that it adds."""
    for key in ("$defs", "definitions", "properties"):
        if isinstance(schema.get(key), Mapping):
            yield from (((key, name), value, int(key == "properties")) for name, value in schema[key].items())
    if isinstance(schema.get("anyOf"), list):
        yield from ((("anyOf", index), value, 0) for index, value in enumerate(schema["anyOf"]))
    if "items" in schema:
        yield ("items",), schema["items"], 1


def _find_size_issue(schema: Mapping[str, Any]) -> SchemaIssue | None:
    property_count = value_count = names_length = 0
    for subschema in _all_schemas(schema):
        values = subschema["enum"] if isinstance(subschema.get("enum"), list) else []
        properties = subschema["properties"] if isinstance(subschema.get("properties"), Mapping) else {}
        property_count += len(properties)
        value_count += len(values)
        names_length += sum(len(text) for text in (*properties, *values) if isinstance(text, str))
    for count, maximum, unit in (
        (property_count, MAX_PROPERTIES, "properties"),
        (value_count, MAX_ENUM_VALUES, "enum values"),
        (names_length, MAX_NAMES_LENGTH, "characters in names and enum values"),
    ):
        if count > maximum:
            return SchemaIssue((), f"the schema has {count} {unit}, but the maximum is {maximum}")
    return None


def _all_schemas(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for _, subschema, _ in _subschemas(schema):
        yield from _all_schemas(subschema)
