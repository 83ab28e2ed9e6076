"""Text -> parts. One object per choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from adapter.tools.reading.parts import Content, Part
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading

Reader: TypeAlias = Callable[[Source], Reading[None]]


class Parser:
    """Has `readers` read the text one after another; what they leave is content.

    Any split of a text gives the same message. Nothing that a model writes raises: what is not a call in the format is
    content, and a call that goes wrong after it was begun keeps the arguments given so far.
    """

    def __init__(self, readers: Sequence[Reader], tools: Tools | None = None) -> None:
        self._source = Source(tools)
        self._reading = _read(self._source, readers)

    def decode(self, text: str) -> list[Part]:
        """What of the text so far is clear by now, and was not given before."""
        if text:
            self._source.add(text)
            next(self._reading)
        return self._source.pop_parts()

    def flush(self) -> list[Part]:
        """The rest, at the end of the text."""
        self._source.end()
        next(self._reading, None)
        return self._source.pop_parts()


def _read(source: Source, readers: Sequence[Reader]) -> Reading[None]:
    for reader in readers:
        yield from reader(source)
        source.at = 0
    yield from source.emit_rest(Content)
