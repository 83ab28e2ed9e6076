"""OpenAI's published description of its API, if the file exists. It is not ours to distribute."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

NAME = "openai-openapi.json"
FOLDER = Path(__file__).parent.parent.parent
"""The file is looked for in the folders beside this clone."""


@cache
def place() -> Path | None:
    """Return the path of the file, or None."""
    return next(iter(sorted(FOLDER.glob(f"*/{NAME}"))), None)


@cache
def description() -> dict[str, Any]:
    """Return the description with its nullable types as JSON Schema. Skips the test without the file."""
    if (path := place()) is None:
        pytest.skip(f"OpenAI's published description ({NAME}, in a folder beside the clone) was not found")
    found: dict[str, Any] = _with_nulls(json.loads(path.read_bytes()))
    return found


def check(schema: str, data: object) -> None:
    """Raise jsonschema.ValidationError if `data` does not match the published `schema`."""
    _validator(schema).validate(data)


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({**description(), "$ref": f"#/components/schemas/{schema}"})


def properties(schema: str) -> set[str]:
    """Return the names of all properties of a schema, including inherited ones."""
    return _properties(description()["components"]["schemas"], schema)


def _properties(schemas: dict[str, Any], name: str) -> set[str]:
    found: set[str] = set()
    rest = [schemas[name]]
    while rest:
        one = rest.pop()
        found |= one.get("properties", {}).keys()
        rest += one.get("allOf", [])
        if "$ref" in one:
            rest.append(schemas[one["$ref"].rpartition("/")[2]])
    return found


def _with_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nulls(one) for one in value]
    if not isinstance(value, dict):
        return value
    fields = {name: _with_nulls(one) for name, one in value.items()}
    return {"anyOf": [fields, {"type": "null"}]} if fields.get("nullable") is True else fields
