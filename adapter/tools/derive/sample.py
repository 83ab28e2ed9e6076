"""Samples of what a template writes for calls, and where the parts of a call are in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from adapter.tools.derive.marks import Frame, find_frame

ID = "\ufdd2"
"""Noncharacter in place of the ids of calls, which differ for every call."""

_DECODER = json.JSONDecoder()


class Sample(msgspec.Struct, frozen=True):
    """Text that a template writes for calls of the function `name` with each of `arguments`, which differ; with ID in
    place of their ids.
    """

    text: str
    name: str
    arguments: tuple[Mapping[str, Any], ...]


class Samples(msgspec.Struct, frozen=True):
    """Samples of one call with two arguments, a text and a number, and of `two` calls, of which the last is the same;
    None if the template does not write several. `control` are the control tokens in them.
    """

    one: Sample
    two: Sample | None
    control: frozenset[str] = frozenset()

    def are_marks(self, *texts: str) -> bool:
        """Return True if none of `texts` has a name, a value or an id of a call."""
        words = [self.one.name, ID, *(value for value in self.one.arguments[0].values() if isinstance(value, str))]
        return not any(word in text for text in texts for word in words)

    def tokens(self, *texts: str) -> tuple[str, ...]:
        """Return the control tokens in `texts`."""
        return tuple(sorted(token for token in self.control if any(token in text for text in texts)))


class Place(msgspec.Struct, frozen=True):
    """Where a call is in a text: from `start` to `end`. `parts` are texts that vary by the shape of calls."""

    start: int
    end: int
    parts: tuple[str, ...] = ()


def json_objects(text: str, at: int = 0) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield where each JSON object in `text` starts and ends, and the object. Objects within others come later."""
    while (at := text.find("{", at)) >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            pass
        else:
            yield at, end, value
        at += 1


def frame_of(samples: Samples, one: list[Place], two: list[Place] | None) -> Frame:
    """Return the texts around calls at these places."""
    text = samples.one.text
    between = None
    if samples.two is not None and two is not None:
        text, one = samples.two.text, two
        between = text[two[0].end : two[1].start]
    return find_frame(text[: one[0].start], between, text[one[-1].end :], samples.control)
