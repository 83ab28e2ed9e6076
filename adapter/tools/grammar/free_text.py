"""Grammars for free text in which all calls fit their schemas.

If a mark of calls is plain text, a grammar for any text would match the mark, too, and anything after it. So text is
matched in pieces that start wherever a mark could start, and that must not start with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from adapter.tools.grammar.lark import Lark, escape, quoted
from adapter.tools.grammar.reasoning import Tags

_ANY = "(?s:.*)"

Start: TypeAlias = tuple[str, str]
"""First characters of a mark, any of which may be there, and a regular expression for what follows."""


def text_without(lark: Lark, *marks: str) -> str:
    """Return an expression for any text without `marks`. First characters may recur only at the start of a mark."""
    starts = _starts(marks)
    edges = "".join(dict.fromkeys(first for first, _ in starts))
    return f"{lark.terminal(f'/[^{escape(edges)}]+/')}? {_piece(lark, edges, starts)}*"


class FreeText:
    """Grammar of text that may end with `calls`.

    `marks` start calls, as for `text_without`. `later`, by default `calls`, is the expression for calls after text, ""
    if there can be none. `bare` and `late` describe calls without a mark, `bare` at the start of an answer and `late`
    after text: the characters they may start with, and a regular expression for what follows. `prefix` is written
    before all text that is not a call.
    """

    def __init__(
        self,
        lark: Lark,
        marks: Sequence[str],
        calls: str,
        later: str | None = None,
        bare: tuple[str, str] | None = None,
        late: tuple[str, str] | None = None,
        prefix: str = "",
    ) -> None:
        self._lark = lark
        self._marks = marks
        self._calls = calls
        self._later = calls if later is None else later
        self._bare = bare
        self._late = late
        self._prefix = prefix

    def expression(self) -> str:
        return self._text(None)

    def after_reasoning(self, tags: Tags, in_reasoning: bool) -> str:
        """Return an expression for reasoning and then the text. Reasoning is optional unless
        the answer starts within it, which `in_reasoning` says.
        """
        lark = self._lark
        reasoned = f"{tags.until_closed(lark)} {tags.around(lark, self._text(None), tokens_only=True)}"
        if in_reasoning:
            return reasoned
        unreasoned = tags.around(lark, self._text(tags.opening), tokens_only=True)
        return lark.one_of([f"/\\s*/ {lark.mark(tags.opening)} {reasoned}", unreasoned])

    def _text(self, opening: str | None) -> str:
        """Return an expression for text that does not start with `opening`, not even after white space."""
        lark, marks = self._lark, _starts(self._marks)
        later_marks = [*marks, *([self._late] if self._late else [])]
        bare = self._bare[0] if self._bare else ""
        edges = "".join(dict.fromkeys(first for first, _ in later_marks))
        piece = _piece(lark, edges, later_marks)
        rest = f"{piece}* ({self._later})?" if self._later else f"{piece}*"
        if self._prefix:
            return lark.one_of([self._calls, f"{quoted(self._prefix)} /[^{escape(edges)}]*/ {rest}", '""'])
        own = "".join(char for char in edges if char not in bare)
        first = _piece(lark, edges, [*marks, *_starts([opening] if opening else [])], own)
        # The first character of `opening` may be one within marks.
        not_opening = f" & ~/\\s*{escape(opening)}{_ANY}/" if opening else ""
        word = lark.terminal(f"/\\s*[^\\s{escape(edges + bare)}][^{escape(edges)}]*/{not_opening}")
        options = lark.one_of([f"{first} {rest}", self._calls, *self._unmarked()])
        return lark.one_of([f"{word} {rest}", f"/\\s*/ ({options})?"])

    def _unmarked(self) -> Iterator[str]:
        """Yield an expression for a text that starts like a call without a mark but is not one."""
        if self._bare:
            firsts = escape(self._bare[0])
            marks = "|".join(map(escape, self._marks))
            excluded = f" & ~/{_ANY}({marks}){_ANY}/" if marks else ""
            yield self._lark.terminal(f"/[{firsts}]{_ANY}/ & ~/[{firsts}]{self._bare[1]}{_ANY}/{excluded}")


def _starts(marks: Sequence[str]) -> list[Start]:
    return [(mark[0], escape(mark[1:])) for mark in marks]


def _piece(lark: Lark, edges: str, starts: Sequence[Start], own: str | None = None) -> str:
    """Return an expression for text from one of the characters `own`, by default `edges`, to before the next one of
    `edges`, which does not begin with one of `starts`. "" if there are no characters.
    """
    own = edges if own is None else own
    runs = {first for first, rest in starts if rest.startswith(escape(first)) and first in own}
    single = "".join(char for char in own if char not in runs)
    pieces = [_terminal(lark, f"[{escape(single)}]", edges, starts)] if single else []
    pieces += [_terminal(lark, f"{escape(char)}+", edges, starts, f"{escape(char)}*") for char in sorted(runs)]
    return lark.one_of(pieces) if len(pieces) > 1 else "".join(pieces)


def _terminal(lark: Lark, first: str, edges: str, starts: Sequence[Start], before: str = "") -> str:
    excluded = "|".join(f"[{escape(start)}]{rest}" for start, rest in starts)
    return lark.terminal(f"/{first}[^{escape(edges)}]*/" + (f" & ~/{before}({excluded}){_ANY}/" if excluded else ""))
