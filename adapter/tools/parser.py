"""Incremental parser of a choice's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from adapter.tools.reading.parts import Content, Part
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading

Reader: TypeAlias = Callable[[Source], Reading[None]]


class Parser:
    """Runs `readers` on a text, one after another. Text that they leave is content.

    The result does not depend on how the text is split into pieces. No text raises an error: what is not a valid call
    is content, and a call that becomes invalid after its start keeps the arguments emitted so far.
    """

    def __init__(self, readers: Sequence[Reader], tools: Tools | None = None) -> None:
        self._source = Source(tools)
        self._reading = _read(self._source, readers)

    def decode(self, text: str) -> list[Part]:
        """Add `text`, and return the parts that are certain by now."""
        if text:
            self._source.add(text)
            next(self._reading)
        return self._source.pop_parts()

    def flush(self, cut: bool = False) -> list[Part]:
        """End the text, and return the remaining parts. `cut`: it was cut off, so that a call at its end of which only
        the start is there is left out. Otherwise such text is content.
        """
        self._source.end(cut)
        next(self._reading, None)
        return self._source.pop_parts()


def _read(source: Source, readers: Sequence[Reader]) -> Reading[None]:
    for reader in readers:
        yield from reader(source)
        source.at = 0
    yield from source.emit_rest(Content)
