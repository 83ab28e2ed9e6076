"""Grammars for text that may be anything, save that all calls in it are of the kind that is allowed.

Where a mark is text, a grammar for any text lets the mark pass too, and anything after it. So text is made of pieces
that begin where a mark could begin, and none of them begins with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapter.tools.grammar.lark import Lark, escape
from adapter.tools.grammar.reasoning import Tags

_ANY = "(?s:.*)"


def text_without(lark: Lark, *marks: str) -> str:
    """A Lark expression for any text without `marks`. A character with which one of them begins does not come again in
    any of them."""
    firsts = _firsts(marks)
    return f"{lark.terminal(f'/[^{firsts}]+/')}? {_piece(lark, firsts, marks)}*"


class FreeText:
    """Text, with or without `calls` at its end.

    `marks` are what calls begin with, as for `without`. `later` are the calls after text, where they are not those that
    may begin an answer; "" for none. `bare` is how calls begin that have no mark, which only an answer that begins so
    is: a character, and a regular expression for the rest.
    """

    def __init__(
        self,
        lark: Lark,
        marks: Sequence[str],
        calls: str,
        later: str | None = None,
        bare: tuple[str, str] | None = None,
    ) -> None:
        self._lark = lark
        self._marks = marks
        self._calls = calls
        self._later = calls if later is None else later
        self._bare = bare

    def expression(self) -> str:
        return self._text(None)

    def after_reasoning(self, tags: Tags, opened: bool) -> str:
        """With reasoning before it, which may be left out if it was not opened."""
        reasoned = f"{self._lark.until(tags.closing)} {self._text(None)}"
        if opened:
            return reasoned
        return self._lark.either([f"/\\s*/ {self._lark.mark(tags.opening)} {reasoned}", self._text(tags.opening)])

    def _text(self, opening: str | None) -> str:
        """It does not begin with `opening`, nor with that after white space."""
        lark, begins = self._lark, (*self._marks, *([opening] if opening else []))
        firsts = _firsts(begins)
        first, piece = _piece(lark, firsts, begins), _piece(lark, firsts, self._marks)
        bare = escape(self._bare[0]) if self._bare else ""
        word = lark.terminal(f"/\\s*[^\\s{firsts}{bare}][^{firsts}]*/")
        rest = f"{piece}* ({self._later})?" if self._later else f"{piece}*"
        options = lark.one_of([f"{first} {rest}", self._calls, *self._unmarked()])
        return lark.one_of([f"{word} {rest}", f"/\\s*/ ({options})?"])

    def _unmarked(self) -> Iterator[str]:
        """All of a text that begins like a call without a mark, and is none."""
        if self._bare:
            begins = escape(self._bare[0])
            marks = "|".join(map(escape, self._marks))
            yield self._lark.terminal(f"/{begins}{_ANY}/ & ~/{begins}{self._bare[1]}{_ANY}/ & ~/{_ANY}({marks}){_ANY}/")


def _firsts(marks: Sequence[str]) -> str:
    """As in a class of characters."""
    return "".join(dict.fromkeys(escape(mark[0]) for mark in marks))


def _piece(lark: Lark, firsts: str, marks: Sequence[str]) -> str:
    return lark.terminal(f"/[{firsts}][^{firsts}]*/ & ~/({'|'.join(map(escape, marks))}){_ANY}/")
