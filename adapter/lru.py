"""What was made lately and may be wanted again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that forgets what was not asked for lately: its values have `limit` in size together, at most.

    Safe to use from several threads: what two of them do at once may be forgotten early, no more.
    """

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._size = 0
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}

    def get(self, key: K) -> V | None:
        kept = self._young.get(key)
        if kept is None:
            kept = self._old.get(key)
            if kept is None:
                return None
            self.put(key, *kept)
        return kept[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep `value`, unless it has more than half the limit."""
        if size > self._half:
            return
        if self._size + size > self._half:
            self._young, self._old, self._size = {}, self._young, 0
        self._young[key] = value, size
        self._size += size
