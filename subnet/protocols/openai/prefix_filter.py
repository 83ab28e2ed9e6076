"""Removal of an answer's prefix, for servers that repeat it before they continue."""

from __future__ import annotations


class PrefixFilter:
    """Removes `prefix` from the start of a text that arrives in parts, if the text starts with all of it.

    `pending` is True until that is known.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._held = ""

    @property
    def pending(self) -> bool:
        return bool(self._prefix)

    def feed(self, text: str) -> str:
        """Return the text that is certainly new."""
        if not self._prefix:
            return text
        self._held += text
        if self._prefix.startswith(self._held) and self._held != self._prefix:
            return ""
        new = self._held.removeprefix(self._prefix)
        self._prefix = self._held = ""
        return new

    def flush(self) -> str:
        """Return the text held back at the end: part of the prefix alone is not a repetition."""
        held, self._held, self._prefix = self._held, "", ""
        return held
