"""Members of a server's JSON objects that are passed on to the client as they are."""

from __future__ import annotations

from typing import Any

from subnet.errors import WireError

# Far more than any server sends. What is passed on is encoded again, by functions that are limited by the stack.
_MAX_DEPTH = 64
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def extra_members(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any] | None:
    """Return the members that are not `known`, as they are, without empty ones, which say nothing; None for none.

    Raises WireError for one that is nested too deeply.
    """
    if known.issuperset(fields):
        return None
    extra = {}
    for name, value in fields.items():
        if name not in known and value not in _EMPTY:
            if isinstance(value, dict | list) and _is_deeper(value, _MAX_DEPTH):
                raise WireError(f"an answer has members nested more than {_MAX_DEPTH} levels deep")
            extra[name] = value
    return extra or None


def merged_members(earlier: dict[str, Any] | None, later: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the members of two reports of the same thing. Of those in both, the later ones count; objects are merged,
    one level deep.
    """
    if earlier is None or later is None:
        return earlier or later
    objects = {
        name: earlier[name] | value
        for name, value in later.items()
        if isinstance(value, dict) and isinstance(earlier.get(name), dict)
    }
    return earlier | later | objects


def _is_deeper(value: dict[str, Any] | list[Any], limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        values = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in values if isinstance(inner, dict | list)]
        if not level:
            return False
    return True
