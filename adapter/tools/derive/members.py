"""Formats whose calls have their arguments one by one, after the name: tags, Python syntax, or braces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from adapter.tools.derive.marks import Frame, find_frame, is_distinct, split_marks
from adapter.tools.derive.objects import NAME
from adapter.tools.derive.sample import Place, Sample, Samples, frame_of
from adapter.tools.formats.base import ToolFormat
from adapter.tools.formats.braces import BraceFormat, BraceSyntax
from adapter.tools.formats.pythonic import Pythonic, PythonStyle
from adapter.tools.formats.tags import TagFormat, TagSyntax

_QUOTES = ("'", '"')


class _Written(msgspec.Struct, frozen=True):
    """What is written in a call with two arguments: `start` after the name, `text_key` after the key of a text and
    `key` after that of a number, `between` the two arguments; and the `frame` around calls, whose `after` starts after
    the value of the last argument.
    """

    start: str
    text_key: str
    between: str
    key: str
    frame: Frame

    @property
    def marks(self) -> tuple[str, ...]:
        frame = self.frame
        around = (frame.opening, frame.before, frame.between, frame.after, frame.closing)
        return (self.start, self.text_key, self.between, self.key, *around)


def member_formats(samples: Samples) -> Iterator[ToolFormat]:
    """Yield the formats that could have written `samples`."""
    written = _written(samples)
    if written is None or not samples.are_marks(*written.marks):
        return
    for describe in (_pythonic, _braces, _tags):
        if found := describe(written, samples):
            yield found


def _written(samples: Samples) -> _Written | None:
    one = _calls(samples.one)
    two = _calls(samples.two) if samples.two else None
    if one is None or (samples.two and two is None):
        return None
    start, text_key, between, key = one[0].parts
    return _Written(start, text_key, between, key, frame_of(samples, one, two))


def _calls(sample: Sample) -> list[Place] | None:
    """Return where each call of a sample is, from its name to its last value, or None if one is not found."""
    places: list[Place] = []
    for arguments in sample.arguments:
        place = _call(sample, places[-1].end if places else 0, arguments)
        if place is None:
            return None
        places.append(place)
    return places


def _call(sample: Sample, at: int, arguments: Mapping[str, Any]) -> Place | None:
    """Find the name, and each key and value after it. The parts are the texts between them."""
    text, start = sample.text, sample.text.find(sample.name, at)
    words = [word for key, value in arguments.items() for word in (key, _text(value))]
    position, parts = start + len(sample.name), []
    for word in words if start >= 0 else ():
        found = text.find(word, position)
        if found < 0:
            return None
        parts.append(text[position:found])
        position = found + len(word)
    return Place(start, position, tuple(parts)) if parts else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _tags(written: _Written, samples: Samples) -> TagFormat | None:
    """Return the format with tags around keys and values."""
    control, frame = samples.control, written.frame
    inner = find_frame(written.start, written.between, frame.after, control)
    call, function = _split_last(frame.before, samples)
    function_end, call_end = _split_first(inner.closing, samples)
    if function.rstrip().endswith(">"):
        # A whole tag is that of a call, in which the name may be all there is.
        call, function, function_end, call_end = frame.before, "", "", inner.closing
    marks = (inner.before, inner.after, function_end + call_end + frame.closing)
    if not is_distinct(frame.opening or frame.before, control) or not all(mark.strip() for mark in marks):
        return None
    same = written.text_key == written.key
    key_end, opening = _split_first(written.text_key, samples) if same else ("", "")
    separator = frame.between.strip()
    return TagFormat(
        TagSyntax(
            name=NAME,
            section=(frame.opening, frame.closing),
            call=(call, call_end),
            function=(function, inner.opening, function_end),
            key=(inner.before, key_end),
            value=(opening, inner.after + inner.between),
            types=() if same else ((written.text_key, "string"), (written.key, "json")),
            separator=frame.between,
            ignored=(separator,) if separator else (),
            tokens=samples.tokens(*written.marks),
        )
    )


def _pythonic(written: _Written, samples: Samples) -> Pythonic | None:
    """Return the format in Python syntax, `name(key="text", key=1)`."""
    frame = written.frame
    quote = written.text_key.removeprefix("=")
    if written.key != "=" or quote not in _QUOTES or written.start.strip() != "(":
        return None
    opening, brackets = frame.opening or frame.before, ("", "")
    closing = (frame.after + frame.closing if frame.opening else frame.after).lstrip()
    if not closing.startswith(")"):
        return None
    closing = closing.removeprefix(")")
    listed = re.search(r"\[\s*\Z", opening)
    if listed and (end := re.match(r"\s*\]", closing)):
        brackets, opening, closing = (listed.group(), end.group()), opening[: listed.start()], closing[end.end() :]
    if not is_distinct(opening, samples.control):
        return None
    between = frame.between or frame.after.removeprefix(")")
    return Pythonic(PythonStyle(name=NAME, sections=((opening, closing),), brackets=brackets, between=between))


def _braces(written: _Written, samples: Samples) -> BraceFormat | None:
    """Return the format of Gemma, `call:name{key:value}` with a mark on both sides of texts."""
    frame = written.frame
    quote = written.text_key.removeprefix(written.key)
    opening, colon, prefix = frame.before.partition("call:")
    shaped = written.start == "{" and written.key == ":" and frame.after.startswith("}") and not prefix
    if not (colon and shaped and quote and written.between == quote + "," and is_distinct(opening, samples.control)):
        return None
    call = (opening, frame.after.removeprefix("}"))
    if frame.opening or not call[1].strip():
        return None
    return BraceFormat(BraceSyntax(name=NAME, call=call, quote=quote, tokens=samples.tokens(*call, quote)))


def _split_last(text: str, samples: Samples) -> tuple[str, str]:
    """Split off the last mark of a text, with the white space after it."""
    units = split_marks(text, samples.control)
    last = next((at for at in reversed(range(len(units))) if units[at].strip()), 0)
    return "".join(units[:last]), "".join(units[last:])


def _split_first(text: str, samples: Samples) -> tuple[str, str]:
    """Split off the first mark of a text, with the white space before it."""
    units = split_marks(text, samples.control)
    first = next((at for at, unit in enumerate(units) if unit.strip()), 0)
    return "".join(units[: first + 1]), "".join(units[first + 1 :])
