"""Tags of reasoning that no row describes."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from adapter.tools.derive.marks import common_marks, common_start, is_distinct, split_marks
from adapter.tools.derive.objects import NAME
from adapter.tools.grammar.reasoning import Tags

_MIN_WORDS = 3


class ReasoningSample(msgspec.Struct, frozen=True):
    """Text `plain` of a message with an `answer`, and `reasoned` with `reasoning` before it. `prompt` is the prompt for
    an answer. `control` are the control tokens in them. No `answer`: it is what both texts end with.
    """

    reasoned: str
    plain: str
    prompt: str
    reasoning: str
    answer: str = ""
    control: Collection[str] = ()


def derive_tags(sample: ReasoningSample) -> Tags | None:
    """Return the tags around reasoning, or None if they are not clear or not distinct from usual text.

    The opening tag is what the text has only with reasoning. If a message without reasoning has an empty pair of tags,
    it is the last mark that both have; and a template may write it in the prompt only.
    """
    control = sample.control
    before, _, rest = sample.reasoned.partition(sample.reasoning)
    answer = sample.answer or _common_end(rest, sample.plain, control)
    if not answer or not sample.reasoning:
        return None
    between, _, end = rest.partition(answer)
    plain = sample.plain.partition(answer)[0]
    shared = common_start(before, plain, control)
    content = plain[len(shared) :].strip()
    opening, closing = before[len(shared) :].strip(), between.strip()
    answers: tuple[tuple[str, str], ...] = ()
    if not opening and (not closing or content.startswith(closing)):
        opening, closing = _mark(shared, -1, control), closing or _mark(answer, 0, control)
        if _letters(opening) != _letters(closing):
            return None
    elif not opening:
        opening = sample.prompt[len(common_start(before, sample.prompt, control)) :].strip()
    elif content and closing.endswith(content) and content != closing:
        closing, answers = closing.removesuffix(content).strip(), ((content, _mark(end, 0, control)),)
    opening, label = _without_label(opening, control)
    clear = opening != closing and all(map(all, answers))
    tagged = _is_tag(opening, control) and _is_tag(closing, control)
    return Tags(NAME, opening, closing, answers=answers, label=label) if clear and tagged else None


def _common_end(one: str, two: str, control: Collection[str]) -> str:
    units = [split_marks(text, control)[::-1] for text in (one, two)]
    return "".join(common_marks(*units)[::-1])


def _mark(text: str, at: int, control: Collection[str]) -> str:
    """Return the first or last mark of a text."""
    return (split_marks(text.strip(), control) or [""])[at]


def _without_label(opening: str, control: Collection[str]) -> tuple[str, str]:
    """Split off a word after the opening tag."""
    units = split_marks(opening, control)
    return (units[0], units[1]) if len(units) == 2 and units[1].isalpha() else (opening, "")


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _is_tag(text: str, control: Collection[str]) -> bool:
    """Return True if a text is one mark, or a line of some words."""
    marked = len(split_marks(text, control)) == 1 and is_distinct(text, control) and not text[0].isalnum()
    return marked or (text.endswith((":", "]")) and len(text.split()) >= _MIN_WORDS and "\n" not in text)
