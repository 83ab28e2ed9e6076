"""Members of a server's JSON objects that are passed on to the client as they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from subnet.errors import WireError

# Far more than any server sends. What is passed on is encoded again, by functions that are limited by the stack.
_MAX_DEPTH = 64
_MAX_NAMES = 256
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class MemberReader:
    """Reads the members that are not `known` of objects of one kind in one response."""

    __slots__ = ("_known", "_names")

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._names: set[str] | None = None

    def read(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return the members of an object as they are, without empty ones, which say nothing; None for none.

        Raises WireError for one that is nested too deeply, or if all objects have too many names together.
        """
        known = self._known
        if known.issuperset(fields):
            return None
        extra = {}
        for name, value in fields.items():
            if name not in known and value not in _EMPTY:
                if isinstance(value, dict | list) and _is_deeper(value, _MAX_DEPTH):
                    raise WireError(f"an answer has members nested more than {_MAX_DEPTH} levels deep")
                extra[name] = value
        if not extra:
            return None
        self._names = self._names or set()
        self._names.update(extra)
        _check_number(self._names)
        return extra


def merged_members(earlier: dict[str, Any] | None, later: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the members of two reports of the same thing. Of those in both, the later ones count; objects are merged,
    one level deep. Raises WireError if such an object gets too many members.
    """
    if earlier is None or later is None:
        return earlier or later
    objects = {
        name: earlier[name] | value
        for name, value in later.items()
        if isinstance(value, dict) and isinstance(earlier.get(name), dict)
    }
    for members in objects.values():
        _check_number(members)
    return earlier | later | objects


def _check_number(names: Collection[str]) -> None:
    if len(names) > _MAX_NAMES:
        raise WireError(f"an answer has more than {_MAX_NAMES} members of one kind")


def _is_deeper(value: dict[str, Any] | list[Any], limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        values = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in values if isinstance(inner, dict | list)]
        if not level:
            return False
    return True
