"""Marks around repeated items, found by what stays the same where the items differ."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import takewhile

import msgspec

# A tag, possibly without its end, which may follow a name; white space; or anything else.
_UNITS = r"<[^<>\n]*>?|\[/?[A-Z_]+\]|[\[\](){},;]|\s+|[^\s<\[\](){},;]+"
_MIN_LENGTH = 3


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Texts around items: `opening` and `closing` around all of them, `before` and `after` each, and `between` two."""

    opening: str = ""
    before: str = ""
    between: str = ""
    after: str = ""
    closing: str = ""


def find_frame(before: str, between: str | None, after: str, control: Collection[str]) -> Frame:
    """Return the texts around items, from those before the first, between two, and after the last one.

    What precedes every item is what the texts before the first one and between two end with. Text between two items
    that is not known, None, leaves open what is written once only: all of it then belongs to an item.
    """
    if between is None:
        return Frame(before=before, after=after)
    first, middle, last = (split_marks(text, control) for text in (before, between, after))
    opened = _counted(common_marks(first[::-1], middle[::-1])[::-1])
    closed = _counted(common_marks(middle[: len(middle) - opened], last))
    return Frame(
        opening="".join(first[: len(first) - opened]),
        before="".join(first[len(first) - opened :]),
        between="".join(middle[closed : len(middle) - opened]),
        after="".join(last[:closed]),
        closing="".join(last[closed:]),
    )


def split_marks(text: str, control: Collection[str] = ()) -> list[str]:
    """Split a text into marks, of which those in `control` are never split, white space, and the rest."""
    tokens = sorted((token for token in control if token in text), key=len, reverse=True)
    return re.findall("|".join([*map(re.escape, tokens), _UNITS]), text)


def is_distinct(text: str, control: Collection[str]) -> bool:
    """Return True if `text` is unlikely in a sentence: a control token, or some characters that are not all letters."""
    bare = text.strip()
    return any(token in bare for token in control) or (len(bare) >= _MIN_LENGTH and not bare.isalnum())


def common_start(one: str, two: str, control: Collection[str]) -> str:
    """Return the marks that two texts both start with."""
    return "".join(common_marks(split_marks(one, control), split_marks(two, control)))


def common_marks(one: Sequence[str], two: Sequence[str]) -> list[str]:
    """Return the marks that two lists of them start with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False))
    return [unit for unit, _ in pairs]


def _counted(units: Sequence[str]) -> int:
    """Return how many units there are; none if all are white space, which tells no item from another."""
    return len(units) if any(unit.strip() for unit in units) else 0
