"""Looking ahead for a call, where text may be something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from adapter.tools.reading.parts import Part, Skipped, ToolCallBegin
from adapter.tools.reading.source import Source
from adapter.tools.reading.text import Reading


class Calls(Protocol):
    """Format of calls that may start with any of `start_marks`."""

    start_marks: tuple[str, ...]

    @property
    def parse(self) -> Callable[[Source], Reading[None]]:
        """Parser of the text and its calls."""


def is_call(source: Source, calls: Calls) -> Reading[bool]:
    """Return True if the text from here on starts with a call to a known tool, or was cut off within its start. Nothing
    is read, but it may wait for more text.
    """
    trial, at = Source(source.tools), source.at
    reading = calls.parse(trial)
    while True:
        text = source.from_position(at)
        at += len(text)
        source.reread(len(text))
        trial.add(text)
        next(reading, None)
        found = _starts_with_call(source, trial.pop_parts())
        if found is not None:
            return found
        if not (yield from source.more()):
            trial.end(source.cut)
            next(reading, None)
            return _starts_with_call(source, trial.pop_parts()) is not False


def _starts_with_call(source: Source, parts: Iterable[Part]) -> bool | None:
    """Return whether the first part is a call, or None if there is none yet."""
    first = next((part for part in parts if not isinstance(part, Skipped)), None)
    return None if first is None else isinstance(first, ToolCallBegin) and source.knows(first.name)
