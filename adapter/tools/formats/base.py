"""How a family of models writes its calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from adapter.tools.grammar.free_text import FreeText
from adapter.tools.grammar.lark import Lark
from adapter.tools.grammar.reasoning import Tags
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading


class ToolFormat(ABC):
    """`name` is what an operator calls it. `visible` are the marks that are control tokens in some vocabularies,
    where the detokenizer has to show them. `opening` are those with which calls begin after text: in none of them does
    a character come again with which one begins. `reasons`: it marks reasoning too, so that no tags are looked for.
    """

    name: ClassVar[str]
    visible_marks: ClassVar[tuple[str, ...]] = ()
    start_marks: ClassVar[tuple[str, ...]] = ()
    marks_reasoning: ClassVar[bool] = False

    @abstractmethod
    def parse(self, source: Source) -> Reading[None]:
        """Gives all that it understands; what it leaves is content."""

    @abstractmethod
    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        """A Lark expression for one call, or with `several` for one or more, each to one of `tools` (at least one)
        with arguments that fit its schema. Raises UnsupportedSchema."""

    def free_grammar(self, lark: Lark, tools: Tools, several: bool, tags: Tags | None, opened: bool) -> str:
        """A Lark expression for any text, with reasoning before it as `tags` mark it, and with or without calls at its
        end: all that `read` takes for a call is one that `calls` allows. Raises UnsupportedSchema."""
        text = self.free_text(lark, tools, lark.rule(self.call_grammar(lark, tools, several)))
        return text.expression() if tags is None else text.after_reasoning(tags, opened)

    def free_text(self, lark: Lark, tools: Tools, calls: str) -> FreeText:
        """What may stand beside `calls`."""
        return FreeText(lark, self.start_marks, calls)

    def content_grammar(self, lark: Lark, body: str) -> str:
        """A Lark expression for an answer of which `body` is the content."""
        return body
