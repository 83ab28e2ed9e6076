"""One of the answers: its deltas -> events."""

from __future__ import annotations

from adapter.decode import Detokenizer, StopScanner
from adapter.events import Event, Finished, TextDelta
from subnet.generation import Delta


class ChoiceReader:
    """`tokens` counts those that made the answer, up to the one that completed a stop string."""

    def __init__(self, index: int, detokenizer: Detokenizer, scanner: StopScanner | None) -> None:
        self.tokens = 0
        self.finished = False
        self._index = index
        self._detokenizer = detokenizer
        self._scanner = scanner

    def take(self, delta: Delta) -> list[Event]:
        """Nothing for a choice that is complete."""
        if self.finished:
            return []
        text = self._read(delta.tokens)
        if delta.finish_reason is not None and not self._stopped:
            text += "" if self._scanner is None else self._scanner.flush()
        reason = "stop" if self._stopped else delta.finish_reason
        events: list[Event] = [TextDelta(self._index, text)] if text else []
        if reason is not None:
            self.finished = True
            events.append(Finished(self._index, reason))
        return events

    @property
    def _stopped(self) -> bool:
        return self._scanner is not None and self._scanner.stopped is not None

    def _read(self, tokens: list[int]) -> str:
        if self._scanner is None:
            self.tokens += len(tokens)
            return self._detokenizer.decode(tokens)
        text = ""
        for token in tokens:
            self.tokens += 1
            text += self._scanner.decode(self._detokenizer.decode([token]))
            if self._stopped:
                break
        return text
