"""Values whose parts arrive in several deltas, put together as clients do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

# Members whose texts do not continue: each delta has all of it.
_WHOLE = frozenset({"id", "type", "object"})


class _Merged(ABC):
    """A value of the JSON type `kind`, in parts, which are put together only once: there may be very many."""

    kind: type

    @abstractmethod
    def add(self, part: Any) -> None: ...

    @abstractmethod
    def build(self) -> Any: ...


class MergedObject(_Merged):
    """An object. Of its members, texts and lists continue, objects are merged, and of an id, a type or any other value
    the last one counts.
    """

    kind = dict

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._members)

    def add(self, part: dict[str, Any]) -> None:
        for name, value in part.items():
            member = self._members.get(name)
            if isinstance(member, _Merged) and type(value) is member.kind:
                member.add(value)
            else:
                self._members[name] = value if name in _WHOLE and isinstance(value, str) else _first(value)

    def build(self) -> dict[str, Any]:
        """Return the object as it is so far."""
        return {name: _built(member) for name, member in self._members.items()}


class _MergedList(_Merged):
    """A list. Objects with the same `index`, in different parts, are parts of the same item."""

    kind = list

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._by_index: dict[int, _Merged] = {}

    def add(self, part: list[Any]) -> None:
        new: dict[int, _Merged] = {}
        for item in part:
            index = item.get("index") if isinstance(item, dict) else None
            if type(index) is not int:
                self._items.append(item)
            elif index in self._by_index:
                self._by_index[index].add(item)
            else:
                new[index] = _first(item)
                self._items.append(new[index])
        self._by_index |= new

    def build(self) -> list[Any]:
        return [_built(item) for item in self._items]


class _MergedText(_Merged):
    kind = str

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, part: str) -> None:
        self._parts.append(part)

    def build(self) -> str:
        return "".join(self._parts)


_KINDS: dict[type, type[_Merged]] = {dict: MergedObject, list: _MergedList, str: _MergedText}


def _first(value: Any) -> Any:
    """Return what the next part of a value can be added to; the value itself if it is replaced instead."""
    if (kind := _KINDS.get(type(value))) is None:
        return value
    merged = kind()
    merged.add(value)
    return merged


def _built(value: Any) -> Any:
    return value.build() if isinstance(value, _Merged) else value
