"""Reasoning between two tags at the start of an answer."""

from __future__ import annotations

import re

import msgspec

from adapter.tools.grammar.lark import Lark
from adapter.tools.reading.parts import Reasoning
from adapter.tools.reading.source import Source
from adapter.tools.reading.text import Reading
from adapter.tools.reading.trial import Calls, is_call

_MARK = re.compile(r"<[^<>\s]+>")


class Tags(msgspec.Struct, frozen=True):
    """Pair of tags around reasoning. `name` is used in settings. `others` are other pairs that mean the same. `answers`
    are pairs of marks that may be around the content, and `ends` marks that may follow it. `templates` are sets of
    strings, one of which is in a chat template with these tags; by default that is one of the tags. `label` is a
    line that may follow the opening tag. `anywhere`: there may be more reasoning after content has begun.
    """

    name: str
    opening: str
    closing: str
    others: tuple[tuple[str, str], ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    ends: tuple[str, ...] = ()
    templates: tuple[tuple[str, ...], ...] = ()
    label: str = ""
    anywhere: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """All marks, and parts of them, that may be control tokens."""
        pairs = ((self.opening, self.closing), *self.others, *self.answers)
        texts = (*(mark for pair in pairs for mark in pair), *self.ends)
        return tuple(dict.fromkeys(mark for text in texts for mark in (_MARK.findall(text) or [text])))

    def are_in(self, template: str) -> bool:
        """Return True if the source of a chat template has these tags."""
        return any(
            all(text in template for text in texts) for texts in self.templates or ((self.opening,), (self.closing,))
        )

    def parse(self, source: Source, in_reasoning: bool, calls: Calls | None = None) -> Reading[None]:
        """Parse reasoning and the opening mark of the content, and skip white space next to them. Reasoning that is not
        closed extends to the end, or to a call in the format `calls`. A closing tag without reasoning is skipped.
        """
        openings, closings = zip((self.opening, self.closing), *self.others, strict=True)
        yield from source.space()
        opened = in_reasoning
        while (yield from source.literal(*openings)):
            opened = True
        if opened:
            yield from source.label(self.label, self.closing)
            yield from source.space()
            source.skip()
            if not (yield from self._reasoning(source, closings, calls if source.tools else None)):
                return
        while (yield from source.literal(*closings)):
            yield from source.space()
            source.skip()
        yield from self._begin_answer(source, closings)

    def _reasoning(self, source: Source, closings: tuple[str, ...], calls: Calls | None) -> Reading[bool]:
        """Emit reasoning up to a closing tag, or to a call without a closing tag after it. Returns False if there is no
        closing tag.
        """
        starts = calls.start_marks if calls else ()
        while (yield from source.emit_until(*closings, *starts, make=Reasoning, trim=True)):
            at = source.at
            if calls is None or (yield from source.literal(*closings)):
                source.at = at
                return True
            found = source.may_reread() and (yield from is_call(source, calls))
            if source.starved and not found:
                yield from source.emit_rest(Reasoning)
                return False
            if found and (yield from source.read_until(*closings)) is None:
                source.at = 0
                return False
            if found:
                calls, starts = None, ()
            source.at = at if found else at + 1
            source.emit(Reasoning)
        return False

    def _begin_answer(self, source: Source, closings: tuple[str, ...]) -> Reading[None]:
        source.ignored = (*closings, *self.ends)
        if self.anywhere:
            source.reasoning = (self.opening, self.label, self.closing)
        openings = [opening for opening, _ in self.answers]
        opening = (yield from source.literal(*openings)) if openings else ""
        if opening:
            source.answer_end = dict(self.answers)[opening]
            yield from source.space()
            source.skip()

    def around(self, lark: Lark, content: str, tokens_only: bool = False) -> str:
        """Return an expression for `content` with or without the marks of an answer around it. `tokens_only` is for a
        content that allows all marks but control tokens.
        """
        space = "" if tokens_only else "/\\s{0,4}/"
        wrapped = [
            f"{lark.mark(opening)} {space} {content} {space} ({lark.mark(closing)})?"
            for opening, closing in self.answers
            if lark.has(opening) or not tokens_only
        ]
        return lark.one_of([content, *wrapped]) if wrapped else content

    def until_closed(self, lark: Lark) -> str:
        """Return an expression for reasoning and the closing tag."""
        return lark.until(self.closing, *(closing for _, closing in self.others))

    def prepend_to(self, lark: Lark, answer: str, in_reasoning: bool) -> str:
        """Return an expression for reasoning and then `answer`. Reasoning is optional unless
        the answer starts within it, which `in_reasoning` says.
        """
        end = self.until_closed(lark)
        if in_reasoning:
            return f"{end} /\\s{{0,4}}/ {answer}"
        return f"({lark.mark(self.opening)} {end} /\\s{{0,4}}/)? {answer}"


_RESPONSE = ("<|open|>response<|sep|>", "<|close|>response<|sep|>")
_KIMI_K3 = Tags(
    name="kimi_k3",
    opening="<|open|>think<|sep|>",
    closing="<|close|>think<|sep|>",
    answers=(_RESPONSE,),
    ends=(_RESPONSE[1], "<|close|>message<|sep|>"),
    templates=(("<|open|>", "<|sep|>", "'think'"),),
)
_GRANITE = ("Here's my thought process:", "Here's my response:")
_COHERE = (("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<|START_TEXT|>", "<|END_TEXT|>"))
# More specific tags come first.
TAGS = (
    Tags(
        name="think_response",
        opening="<think>",
        closing="</think>",
        answers=(("<response>", "</response>"),),
        templates=(("<think>", "<response></response>"), ("<think>", "<response>\\n")),
    ),
    Tags(
        name="think_answer",
        opening="<think>",
        closing="</think>",
        answers=(("<answer>", "</answer>"),),
        templates=(("<think>", "<answer>"), ("<think>", "<|extra_0|>")),
    ),
    Tags("think", "<think>", "</think>"),
    Tags("mistral", "[THINK]", "[/THINK]"),
    Tags("granite", "Here is my thought process:", "Here is my response:", (_GRANITE,)),
    Tags("kimi", "\u25c1think\u25b7", "\u25c1/think\u25b7"),
    _KIMI_K3,
    Tags("apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
    Tags("apriel", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    Tags("seed", "<seed:think>", "</seed:think>"),
    Tags("minimax", "<mm:think>", "</mm:think>"),
    Tags("hy3", "<think:opensource>", "</think:opensource>", templates=(("<think{}>", "opensource"),)),
    Tags("gemma4", "<|channel>", "<channel|>", label="thought", anywhere=True),
    Tags("cohere", "<|START_THINKING|>", "<|END_THINKING|>", (), _COHERE),
)
