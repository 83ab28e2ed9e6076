"""Reasoning between two tags at the start of an answer."""

from __future__ import annotations

import msgspec

from adapter.tools.grammar.lark import Lark
from adapter.tools.reading.parts import Reasoning
from adapter.tools.reading.source import Source
from adapter.tools.reading.text import Reading


class Tags(msgspec.Struct, frozen=True):
    """Pair of tags around reasoning. `name` is used in settings."""

    name: str
    opening: str
    closing: str

    def parse(self, source: Source, in_reasoning: bool) -> Reading[None]:
        """Parse reasoning, and skip white space next to the tags. Reasoning that is not closed extends to the end."""
        yield from source.space()
        if not (yield from source.literal(self.opening)) and not in_reasoning:
            return
        yield from source.space()
        source.skip()
        yield from source.emit_until(self.closing, make=Reasoning, trim=True)
        yield from source.literal(self.closing)
        yield from source.space()
        source.skip()

    def prepend_to(self, lark: Lark, answer: str, in_reasoning: bool) -> str:
        """Return an expression for reasoning and then `answer`. Reasoning is optional unless
        the answer starts within it, which `in_reasoning` says.
        """
        end = lark.until(self.closing)
        if in_reasoning:
            return f"{end} /\\s{{0,4}}/ {answer}"
        return f"({lark.mark(self.opening)} {end} /\\s{{0,4}}/)? {answer}"


TAGS = (
    Tags("think", "<think>", "</think>"),
    Tags("mistral", "[THINK]", "[/THINK]"),
    Tags("seed", "<seed:think>", "</seed:think>"),
    Tags("minimax", "<mm:think>", "</mm:think>"),
    Tags("hy3", "<think:opensource>", "</think:opensource>"),
    Tags("gemma4", "<|channel>thought", "<channel|>"),
    Tags("cohere", "<|START_THINKING|>", "<|END_THINKING|>"),
)
