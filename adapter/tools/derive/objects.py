"""Formats whose calls have their arguments in one JSON object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from adapter.tools.derive.marks import Frame, is_distinct
from adapter.tools.derive.sample import ID, Place, Sample, Samples, frame_of, json_objects
from adapter.tools.formats.json_calls import JsonCalls
from adapter.tools.formats.json_style import JsonStyle

NAME = "derived"

_Find: TypeAlias = Callable[[str, int, str, Mapping[str, Any]], Place | None]
_LIST_START = re.compile(r"\[\s*\Z")
_LIST_END = re.compile(r"\s*\]")
_NUMBERED = re.compile(r"(\D*)(\d+)(.*)", re.DOTALL)


def object_formats(samples: Samples) -> Iterator[JsonCalls]:
    """Yield the formats that could have written `samples`, by where they have the name of a call."""
    for find, describe in ((_whole, _described), (_keyed, _keyed_style), (_named, _named_style)):
        one = _places(find, samples.one)
        two = _places(find, samples.two) if samples.two else None
        if one is None or (samples.two and two is None):
            continue
        style = describe(two or one)
        framed = style and _framed(style, frame_of(samples, one, two), samples)
        if framed is not None:
            yield JsonCalls(framed)


def _places(find: _Find, sample: Sample) -> list[Place] | None:
    """Return where each call of a sample is, or None if one is not found."""
    places: list[Place] = []
    for arguments in sample.arguments:
        place = find(sample.text, places[-1].end if places else 0, sample.name, arguments)
        if place is None:
            return None
        places.append(place)
    return places


def _whole(text: str, at: int, name: str, arguments: Mapping[str, Any]) -> Place | None:
    """Find an object with the name and the arguments as members. Its parts are their keys."""
    for start, end, value in json_objects(text, at):
        keys = [next((key for key, each in value.items() if each == part), None) for part in (name, arguments)]
        if keys[0] is not None and keys[1] is not None:
            return Place(start, end, (keys[0], keys[1]))
    return None


def _keyed(text: str, at: int, name: str, arguments: Mapping[str, Any]) -> Place | None:
    """Find an object with the arguments as its only member, under the name."""
    found = (Place(start, end) for start, end, value in json_objects(text, at) if value == {name: arguments})
    return next(found, None)


def _named(text: str, at: int, name: str, arguments: Mapping[str, Any]) -> Place | None:
    """Find the name before an object that is the arguments. The part is the text between the two."""
    start = text.find(name, at)
    if start < 0:
        return None
    for opening, end, value in json_objects(text, start):
        if value == arguments:
            return Place(start, end, (text[start + len(name) : opening],))
    return None


def _described(places: list[Place]) -> JsonStyle | None:
    keys = places[0].parts
    same = all(place.parts == keys for place in places)
    return JsonStyle(name=NAME, name_key=keys[0], arguments_key=keys[1]) if same else None


def _keyed_style(places: list[Place]) -> JsonStyle:
    return JsonStyle(name=NAME, shape="keyed")


def _named_style(places: list[Place]) -> JsonStyle | None:
    """Return a style with what is between name and arguments: an id, or a number that counts calls."""
    middles = [place.parts[0] for place in places]
    style = JsonStyle(name=NAME, shape="named")
    if all(middle == middles[0] for middle in middles):
        id_mark, _, after = middles[0].rpartition(ID)
        return msgspec.structs.replace(style, id_mark=id_mark, after_name=after)
    numbered = [found.groups() for middle in middles if (found := _NUMBERED.fullmatch(middle))]
    if len(numbered) != len(places) or len({(before, after) for before, _, after in numbered}) > 1:
        return None
    before, first, after = numbered[0]
    counts = [int(number) - int(first) for _, number, _ in numbered] == list(range(len(places)))
    return msgspec.structs.replace(style, number=before, after_name=after) if counts and before else None


def _framed(style: JsonStyle, frame: Frame, samples: Samples) -> JsonStyle | None:
    """Return the style with the marks of a frame, or None if these are not distinct."""
    style, frame = _with_id(style, frame) if style.shape == "named" else _with_brackets(style, frame)
    marks = (frame.opening, frame.before, style.before_name, style.after_name, frame.after, frame.closing)
    opening = frame.opening + style.brackets[0] if frame.opening else frame.before
    bare = not opening.strip() and style.shape == "object"
    if not samples.are_marks(*marks, style.id_mark, frame.between) or (style.shape == "named" and "{" in opening):
        return None
    if not bare and not is_distinct(opening, samples.control):
        return None
    return msgspec.structs.replace(
        style,
        section=(frame.opening, frame.closing),
        call=(frame.before, frame.after),
        between=frame.between,
        bare=bare,
        tokens=samples.tokens(*marks, style.id_mark),
    )


def _with_id(style: JsonStyle, frame: Frame) -> tuple[JsonStyle, Frame]:
    """Move an id before the name, and the mark after it, from the frame to the style."""
    before, found, after = frame.before.partition(ID)
    if not found:
        return style, frame
    return msgspec.structs.replace(style, leading_id=True, before_name=after), msgspec.structs.replace(
        frame, before=before
    )


def _with_brackets(style: JsonStyle, frame: Frame) -> tuple[JsonStyle, Frame]:
    """Move the brackets of a list from the frame to the style."""
    start, end = (frame.opening, frame.closing) if frame.opening else (frame.before, frame.after)
    opening, closing = _LIST_START.search(start), _LIST_END.match(end)
    if not opening or not closing:
        return style, frame
    section = (start[: opening.start()], end[closing.end() :])
    brackets = (opening.group(), closing.group())
    return msgspec.structs.replace(style, brackets=brackets), Frame(
        opening=section[0], between=frame.between, closing=section[1]
    )
