"""References (`$ref`) within a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def can_follow(root: Mapping[str, Any], reference: Any) -> bool:
    """Return whether a reference leads to a schema within `root`, and not back to itself at the same place."""
    return isinstance(reference, str) and _resolve(root, reference) is not None and not is_endless(root, reference)


def is_endless(root: Mapping[str, Any], reference: Any) -> bool:
    """Return whether a reference leads back to itself at the same place, through references and `allOf` only."""
    return _is_circular(root, {"$ref": reference}, set(), set())


def _is_circular(root: Mapping[str, Any], schema: Any, above: set[str], done: set[str]) -> bool:
    """Search depth first; `above` are the references that lead to `schema`, and `done` those that are no part of a
    circle.
    """
    if not isinstance(schema, Mapping):
        return False
    parts = schema.get("allOf")
    if isinstance(parts, list) and any(_is_circular(root, part, above, done) for part in parts):
        return True
    reference = schema.get("$ref")
    if not isinstance(reference, str) or reference in done:
        return False
    if reference in above:
        return True
    above.add(reference)
    found = _is_circular(root, _resolve(root, reference), above, done)
    above.discard(reference)
    done.add(reference)
    return found


def _resolve(root: Any, reference: str) -> Any:
    """Return the schema that a reference within the document refers to; None for any other."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    target = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping):
            target = target.get(name)
        elif isinstance(target, list) and name.isdecimal() and int(name[:6]) < len(target):
            target = target[int(name[:6])]
        else:
            return None
    return target if isinstance(target, Mapping | bool) else None
