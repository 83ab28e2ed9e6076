"""How a family of models writes its calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from adapter.decode.parsers.lark import Lark
from adapter.decode.parsers.source import Source, Tools
from adapter.decode.parsers.text import Reading


class ToolFormat(ABC):
    """`name` is what an operator calls it. `visible` are the marks that are control tokens in some vocabularies,
    where the detokenizer has to show them. `reasons`: it marks reasoning too, so that no tags are looked for.
    """

    name: ClassVar[str]
    visible: ClassVar[tuple[str, ...]] = ()
    reasons: ClassVar[bool] = False

    @abstractmethod
    def read(self, source: Source) -> Reading[None]:
        """Gives all that it understands; what it leaves is content."""

    @abstractmethod
    def calls(self, lark: Lark, tools: Tools, several: bool) -> str:
        """A Lark expression for one call, or with `several` for one or more, each to one of `tools` (at least one)
        with arguments that fit its schema. Raises UnsupportedSchema."""

    def answer(self, lark: Lark, body: str) -> str:
        """A Lark expression for an answer of which `body` is the content."""
        return body
