"""Base class of the formats in which families of models write tool calls."""

from __future__ import annotations

from abc import ABC, abstractmethod

from adapter.tools.grammar.free_text import FreeText
from adapter.tools.grammar.lark import Lark
from adapter.tools.grammar.reasoning import Tags
from adapter.tools.reading.source import Source, Tools
from adapter.tools.reading.text import Reading


class ToolFormat(ABC):
    """Parser and grammar of a format of tool calls.

    `name` is used in settings. `visible_marks` may be control tokens, which the detokenizer must then output.
    `start_marks` start calls after text; their first characters must not recur within any of them, but for repetitions
    at the start. `marks_reasoning`: the format marks reasoning as well, so that no tags of reasoning are parsed.
    `marks_text`: it marks text as well, so that answers without calls are parsed, too.
    """

    name: str
    visible_marks: tuple[str, ...] = ()
    start_marks: tuple[str, ...] = ()
    marks_reasoning: bool = False
    marks_text: bool = False

    @abstractmethod
    def parse(self, source: Source) -> Reading[None]:
        """Parse the text and emit its parts. Text that is not parsed is content."""

    @abstractmethod
    def call_grammar(self, lark: Lark, tools: Tools, several: bool) -> str:
        """Return an expression for one call, or with `several` for one or more. Each is to one of `tools` (at least
        one), with arguments that fit its schema. Raises UnsupportedSchema.
        """

    def free_grammar(self, lark: Lark, tools: Tools, several: bool, tags: Tags | None, in_reasoning: bool) -> str:
        """Return an expression for any text, with reasoning before it if there are `tags`, and optional calls at its
        end: everything that `parse` would parse as a call fits `call_grammar`. Raises UnsupportedSchema.
        """
        text = self.free_text(lark, tools, lark.rule(self.call_grammar(lark, tools, several)))
        return text.expression() if tags is None else text.after_reasoning(tags, in_reasoning)

    def free_text(self, lark: Lark, tools: Tools, calls: str) -> FreeText:
        """Return the grammar of text that may end with `calls`."""
        return FreeText(lark, self.start_marks, calls)

    def content_grammar(self, lark: Lark, body: str) -> str:
        """Return an expression for an answer with the content `body`."""
        return body
