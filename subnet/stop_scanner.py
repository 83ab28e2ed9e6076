"""Detection of stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Ends a text at the first stop string: the one that is complete first, or the longest of those that end at that
    character. The result does not depend on how the text is split into pieces.

    `stopped` is the matching stop string, or None so far. With `include` the text ends after the stop string, not
    before it. Empty stop strings are ignored. Memory and time per call are bounded by the lengths of the stop strings
    and of the new text.
    """

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        self.stopped: str | None = None
        self._stops = [stop for stop in stops if stop]
        self._firsts = frozenset(stop[0] for stop in self._stops)
        self._max_length = max(map(len, self._stops), default=0)
        self._include = include
        self._held = ""

    def decode(self, text: str) -> str:
        """Return the text that can be released: it excludes stop strings, what may become one, and what follows one."""
        if self.stopped is not None:
            return ""
        if not self._held and self._firsts.isdisjoint(text):
            return text
        text = self._held + text
        matches = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if matches:
            return self._stop(text, *min(matches))
        cut = self._safe_length(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """Return the text that was held back, at the end of the input."""
        held, self._held = self._held, ""
        return held

    def _stop(self, text: str, end: int, start: int) -> str:
        self.stopped = text[start:end]
        self._held = ""
        return text[:end] if self._include else text[:start]

    def _safe_length(self, text: str) -> int:
        """Return the length of the text before its longest suffix that is a prefix of a stop string."""
        for cut in range(max(0, len(text) - self._max_length + 1), len(text)):
            if text[cut] in self._firsts:
                rest = text[cut:]
                if any(stop.startswith(rest) for stop in self._stops):
                    return cut
        return len(text)
