"""One of the answers: its deltas -> events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from adapter.decode import Detokenizer
from adapter.events import Event, Finished, TextDelta
from subnet.generation import Delta

Emit = Callable[[Event], None]


class ChoiceReader(ABC):
    """`tokens` counts those that made the answer, `reasoning_tokens` those of them that nobody sees as content."""

    tokens = 0
    reasoning_tokens = 0
    finished = False

    @abstractmethod
    def take(self, delta: Delta, emit: Emit) -> None:
        """Emit what `delta` adds: nothing for a choice that is complete."""


class PlainReader(ChoiceReader):
    """Shows all text as it comes. This is the way that most tokens take, so it is a short one."""

    def __init__(self, index: int, detokenizer: Detokenizer) -> None:
        self._index = index
        self._decode = detokenizer.decode

    def take(self, delta: Delta, emit: Emit) -> None:
        self.tokens += len(delta.tokens)
        if text := self._decode(delta.tokens):
            emit(TextDelta(self._index, text))
        if delta.finish_reason is not None:
            self.finished = True
            emit(Finished(self._index, delta.finish_reason))
