"""One of the answers: its deltas -> events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from adapter.decode import Detokenizer
from adapter.events import Event, Finished, TextDelta
from subnet.generation import Delta

Emit = Callable[[Event], None]


class ChoiceReader(ABC):
    """Gives the events of a choice to `emit`, which is to be set before anything is taken.

    `tokens` counts those that made the answer, None: all that were delivered did; `reasoning_tokens` those of them that
    nobody sees as content.
    """

    __slots__ = ("emit", "finished", "reasoning_tokens", "tokens")

    def __init__(self) -> None:
        self.emit: Emit = _unheard
        self.tokens: int | None = None
        self.reasoning_tokens = 0
        self.finished = False

    @abstractmethod
    def take(self, delta: Delta) -> None:
        """Emit what `delta` adds: nothing for a choice that is complete."""


class PlainReader(ChoiceReader):
    """Shows all text as it comes, and ends when the node does. This is the way that most tokens take, so it is a short
    one.

    All that is on it has slots: with hundreds of streams a token finds nothing of its stream in the processor's cache,
    and what it costs is how many places in memory it looks at.
    """

    __slots__ = ("_detokenizer", "_index")

    def __init__(self, index: int, detokenizer: Detokenizer) -> None:
        super().__init__()
        self._index = index
        self._detokenizer = detokenizer

    def take(self, delta: Delta) -> None:
        emit = self.emit
        if text := self._detokenizer.decode(delta.tokens):
            emit(TextDelta(self._index, text))
        if delta.finish_reason is not None:
            self.finished = True
            emit(Finished(self._index, delta.finish_reason))


def _unheard(event: Event) -> None:
    raise AssertionError("emit was not set before the first delta")
