"""One of the answers: its deltas -> events."""

from __future__ import annotations

from collections.abc import Callable

from adapter.decode import Detokenizer, StopScanner
from adapter.events import Event, Finished, TextDelta
from subnet.generation import Delta

Emit = Callable[[Event], None]


class PlainReader:
    """Of a choice whose text is shown as it comes. This is the way that most tokens take, so it is a short one.

    `tokens` counts those that made the answer.
    """

    def __init__(self, index: int, detokenizer: Detokenizer) -> None:
        self.tokens = 0
        self.finished = False
        self._index = index
        self._decode = detokenizer.decode

    def take(self, delta: Delta, emit: Emit) -> None:
        """Emit what `delta` adds."""
        self.tokens += len(delta.tokens)
        if text := self._decode(delta.tokens):
            emit(TextDelta(self._index, text))
        if delta.finish_reason is not None:
            self.finished = True
            emit(Finished(self._index, delta.finish_reason))


class StoppingReader:
    """Of a choice that stop strings may end. `tokens` counts those up to the one that completed a stop string."""

    def __init__(self, index: int, detokenizer: Detokenizer, scanner: StopScanner) -> None:
        self.tokens = 0
        self.finished = False
        self._index = index
        self._detokenizer = detokenizer
        self._scanner = scanner

    def take(self, delta: Delta, emit: Emit) -> None:
        """Nothing for a choice that is complete."""
        if self.finished:
            return
        text = self._read(delta.tokens)
        stopped = self._scanner.stopped is not None
        if delta.finish_reason is not None and not stopped:
            text += self._scanner.flush()
        if text:
            emit(TextDelta(self._index, text))
        if (reason := "stop" if stopped else delta.finish_reason) is not None:
            self.finished = True
            emit(Finished(self._index, reason))

    def _read(self, tokens: list[int]) -> str:
        text = ""
        for token in tokens:
            self.tokens += 1
            text += self._scanner.decode(self._detokenizer.decode([token]))
            if self._scanner.stopped is not None:
                break
        return text


ChoiceReader = PlainReader | StoppingReader
