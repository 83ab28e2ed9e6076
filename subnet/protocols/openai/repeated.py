"""The beginning of an answer, if a server that was to go on with it sends it again."""

from __future__ import annotations


class Repeated:
    """Takes `begun` away from the front of what comes, if it is there exactly; `pending`: that is not known yet."""

    def __init__(self, begun: str) -> None:
        self._begun = begun
        self._held = ""

    @property
    def pending(self) -> bool:
        return bool(self._begun)

    def decode(self, text: str) -> str:
        """What is surely new."""
        if not self._begun:
            return text
        self._held += text
        if self._begun.startswith(self._held) and self._held != self._begun:
            return ""
        new = self._held.removeprefix(self._begun)
        self._begun = self._held = ""
        return new

    def flush(self) -> str:
        """At the end: a part of the beginning alone is no repetition."""
        held, self._held, self._begun = self._held, "", ""
        return held
