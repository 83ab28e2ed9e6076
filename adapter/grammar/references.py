"""References (`$ref`) within a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote


class References:
    """References in the schema `root`. Each is followed once, however often it is asked about."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._endless: dict[str, bool] = {}
        self._fine: set[str] = set()

    def can_follow(self, reference: Any) -> bool:
        """Return whether a reference leads to a schema within the root, and not back to itself at the same place."""
        is_known = isinstance(reference, str) and self.resolve(reference) is not None
        return is_known and not self.is_endless(reference)

    def is_endless(self, reference: Any) -> bool:
        """Return whether a reference leads back to itself at the same place, through references and `allOf` only."""
        if not isinstance(reference, str):
            return False
        if reference not in self._endless:
            try:
                self._endless[reference] = self._is_circular({"$ref": reference}, set())
            except RecursionError:
                self._endless[reference] = True
        return self._endless[reference]

    def resolve(self, reference: str) -> Any:
        """Return the schema that a reference within the document refers to; None for any other."""
        return _resolve(self._root, reference)

    def _is_circular(self, schema: Any, above: set[str]) -> bool:
        """Search depth first; `above` are the references that lead to `schema`."""
        if not isinstance(schema, Mapping):
            return False
        parts = schema.get("allOf")
        if isinstance(parts, list) and any(self._is_circular(part, above) for part in parts):
            return True
        reference = schema.get("$ref")
        if not isinstance(reference, str) or reference in self._fine:
            return False
        if reference in above or self._endless.get(reference, False):
            return True
        above.add(reference)
        found = self._is_circular(self.resolve(reference), above)
        above.discard(reference)
        if not found:
            self._fine.add(reference)
        return found


def steps_of(reference: str) -> list[str]:
    """Return the steps of a reference within the document: RFC 6901, in a URI fragment."""
    return [step.replace("~1", "/").replace("~0", "~") for step in unquote(reference[1:]).split("/")[1:]]


def _resolve(root: Any, reference: str) -> Any:
    """Return the schema that a reference within the document refers to; None for any other."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    target = root
    for name in steps_of(reference):
        if isinstance(target, Mapping):
            target = target.get(name)
        elif isinstance(target, list) and name.isdecimal() and int(name[:6]) < len(target):
            target = target[int(name[:6])]
        else:
            return None
    return target if isinstance(target, Mapping | bool) else None
