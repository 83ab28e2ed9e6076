"""Ends a choice at a stop string, of which nothing is shown."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """The stop string that is complete first ends the text; of several that end at the same character, the longest.
    So the result does not depend on how the text was cut into pieces.

    `stopped` is the stop string found, or None. With `include` it is part of the text that is given. Empty stop
    strings are ignored. Memory and work per call are bounded by the length of the stop strings and of the new text.
    """

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        self.stopped: str | None = None
        self._stops = [stop for stop in stops if stop]
        self._firsts = frozenset(stop[0] for stop in self._stops)
        self._longest = max(map(len, self._stops), default=0)
        self._include = include
        self._held = ""

    def decode(self, text: str) -> str:
        """The text that is safe to show now: no part of a stop string, nor anything after one."""
        if self.stopped is not None:
            return ""
        if not self._held and self._firsts.isdisjoint(text):
            return text
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            return self._stop(text, *min(found))
        cut = self._safe(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _stop(self, text: str, end: int, start: int) -> str:
        self.stopped = text[start:end]
        self._held = ""
        return text[:end] if self._include else text[:start]

    def _safe(self, text: str) -> int:
        """Where the longest end of `text` begins that starts a stop string."""
        for cut in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[cut] in self._firsts:
                rest = text[cut:]
                if any(stop.startswith(rest) for stop in self._stops):
                    return cut
        return len(text)
