"""Grammars for free text in which all calls fit their schemas.

If a mark of calls is plain text, a grammar for any text would match the mark, too, and anything after it. So text is
matched in pieces that start wherever a mark could start, and that must not start with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapter.tools.grammar.lark import Lark, escape
from adapter.tools.grammar.reasoning import Tags

_ANY = "(?s:.*)"


def text_without(lark: Lark, *marks: str) -> str:
    """Return an expression for any text without `marks`. The first characters of marks must not recur within marks."""
    firsts = _firsts(marks)
    return f"{lark.terminal(f'/[^{firsts}]+/')}? {_piece(lark, firsts, marks)}*"


class FreeText:
    """Grammar of text that may end with `calls`.

    `marks` start calls, as for `text_without`. `later`, by default `calls`, is the expression for calls after text, ""
    if there can be none. `bare` describes calls without a mark, which are only possible at the start of an answer:
    their first character, and a regular expression for what follows it.
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

    def after_reasoning(self, tags: Tags, in_reasoning: bool) -> str:
        """Return an expression for reasoning and then the text. Reasoning is optional unless
        the answer starts within it, which `in_reasoning` says.
        """
        reasoned = f"{self._lark.until(tags.closing)} {self._text(None)}"
        if in_reasoning:
            return reasoned
        return self._lark.one_of([f"/\\s*/ {self._lark.mark(tags.opening)} {reasoned}", self._text(tags.opening)])

    def _text(self, opening: str | None) -> str:
        """Return an expression for text that does not start with `opening`, not even after white space."""
        lark, firsts = self._lark, _firsts(self._marks)
        first = _piece(lark, firsts, (*self._marks, *([opening] if opening else [])))
        piece = _piece(lark, firsts, self._marks)
        bare = escape(self._bare[0]) if self._bare else ""
        # The first character of `opening` may be one within marks.
        not_opening = f" & ~/\\s*{escape(opening)}{_ANY}/" if opening else ""
        word = lark.terminal(f"/\\s*[^\\s{firsts}{bare}][^{firsts}]*/{not_opening}")
        rest = f"{piece}* ({self._later})?" if self._later else f"{piece}*"
        options = lark.one_of([f"{first} {rest}", self._calls, *self._unmarked()])
        return lark.one_of([f"{word} {rest}", f"/\\s*/ ({options})?"])

    def _unmarked(self) -> Iterator[str]:
        """Yield an expression for a text that starts like a call without a mark but is not one."""
        if self._bare:
            first = escape(self._bare[0])
            marks = "|".join(map(escape, self._marks))
            yield self._lark.terminal(f"/{first}{_ANY}/ & ~/{first}{self._bare[1]}{_ANY}/ & ~/{_ANY}({marks}){_ANY}/")


def _firsts(marks: Sequence[str]) -> str:
    """Return the first characters of `marks`, escaped for a character class."""
    return "".join(dict.fromkeys(escape(mark[0]) for mark in marks))


def _piece(lark: Lark, firsts: str, marks: Sequence[str]) -> str:
    return lark.terminal(f"/[{firsts}][^{firsts}]*/ & ~/({'|'.join(map(escape, marks))}){_ANY}/")
