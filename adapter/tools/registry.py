"""Which parsers fit a model, by the marks in its chat template or by what the operator says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from adapter.tools.formats.base import ToolFormat
from adapter.tools.formats.deepseek import DeepSeek, DeepSeekV3
from adapter.tools.formats.glm import Glm
from adapter.tools.formats.harmony import Harmony
from adapter.tools.formats.hermes import Hermes
from adapter.tools.formats.llama3_json import Llama3Json
from adapter.tools.formats.mistral import Mistral, MistralArgs
from adapter.tools.formats.pythonic import Pythonic
from adapter.tools.formats.qwen3_coder import Qwen3Coder
from adapter.tools.grammar.lark import Lark
from adapter.tools.grammar.reasoning import TAGS, Tags
from adapter.tools.parser import Parser, Reader
from adapter.tools.reading.source import Tools

T = TypeVar("T")
NONE = "none"

# The first whose marks are all in the template fits: what is special comes before what it resembles.
_MARKS: tuple[tuple[type[ToolFormat], tuple[str, ...]], ...] = (
    (Harmony, ("<|channel|>", "<|message|>")),
    (DeepSeekV3, (DeepSeek.visible_marks[0], "```json")),
    (DeepSeek, (DeepSeek.visible_marks[0],)),
    (MistralArgs, ("[TOOL_CALLS]", "[ARGS]")),
    (Mistral, ("[TOOL_CALLS]",)),
    (Glm, ("<arg_key>",)),
    (Qwen3Coder, ("<function=", "<parameter=")),
    (Hermes, ("<tool_call>",)),
    (Pythonic, ("<|python_start|>",)),
    (Pythonic, ("<|tool_call_start|>",)),
    (Llama3Json, ("<|python_tag|>",)),
    (Llama3Json, ('"parameters"', "<|start_header_id|>")),
)
FORMATS: Mapping[str, type[ToolFormat]] = {kind.name: kind for kind, _ in _MARKS}
REASONING: Mapping[str, Tags] = {tags.name: tags for tags in TAGS}


class ModelFormat(msgspec.Struct, frozen=True):
    """How a model writes calls and reasoning: the maker of its parsers and grammars. None: it does not."""

    tool_format: ToolFormat | None
    tags: Tags | None

    def for_vocabulary(self, pieces: Sequence[bytes]) -> ModelFormat:
        """The same, for a model of which token i is `pieces[i]`. May take a second."""
        return ModelFormat(Harmony.for_vocabulary(pieces), self.tags) if isinstance(self.tool_format, Harmony) else self

    @property
    def visible_marks(self) -> tuple[str, ...]:
        """The marks that the detokenizer has to show where they are control tokens."""
        shown = () if self.tool_format is None else self.tool_format.visible_marks
        return shown if self.tags is None else (*shown, self.tags.opening, self.tags.closing)

    def opened(self, prompt: str) -> bool:
        """Whether the answer to `prompt` begins inside reasoning."""
        return self.tags is not None and self.tags.opened(prompt)

    def parser(self, tools: Tools | None = None, opened: bool = False) -> Parser | None:
        """For one choice. `tools`: the functions it may call; without any, calls are not looked for, and None is
        returned where there is nothing to look for at all."""
        readers: list[Reader] = []
        if self.tags is not None:
            readers.append(partial(self.tags.parse, opened=opened))
        if self.tool_format is not None and (tools or self.tool_format.marks_reasoning):
            readers.append(self.tool_format.parse)
        return Parser(readers, tools) if readers else None

    def grammar(self, tools: Tools, several: bool, special: Mapping[str, int], opened: bool = False) -> str:
        """What makes the model call: in llguidance's dialect of Lark, one call, or with `several` one or more, each to
        one of `tools` (at least one) with arguments that fit its schema. Reasoning may come before.

        `special` are the ids of the model's control tokens by their texts: a mark among them is asked for as that
        token. Models that know no calls get the hermes format. Raises UnsupportedSchema for what the format cannot
        promise; a schema that llguidance cannot follow shows when the grammar is used.
        """
        lark = Lark(special)
        return self._after_reasoning(lark, (self.tool_format or Hermes()).call_grammar(lark, tools, several), opened)

    def free(self, tools: Tools, several: bool, special: Mapping[str, int], opened: bool = False) -> str | None:
        """The same where the model may call or not: any text, with or without such calls at its end. None for models
        that know no calls, in whose answers none are looked for. Raises UnsupportedSchema."""
        if self.tool_format is None:
            return None
        lark = Lark(special)
        return lark.text(self.tool_format.free_grammar(lark, tools, several, self.tags, opened))

    def answer(
        self,
        body: str,
        special: Mapping[str, int],
        opened: bool = False,
        tools: Tools | None = None,
        several: bool = True,
    ) -> str | None:
        """The grammar of an answer of which `body`, a Lark expression such as `%json {...}`, is the content, and
        which may have reasoning before it; or, with `tools`, of calls to them instead. None where the model writes
        nothing but the content. Raises UnsupportedSchema."""
        calls = tools if self.tool_format else None
        if self.tags is None and not calls and not (self.tool_format and self.tool_format.marks_reasoning):
            return None
        lark = Lark(special)
        whole = lark.rule(body)
        if self.tool_format is not None:
            whole = self.tool_format.content_grammar(lark, whole)
            if calls:
                whole = lark.one_of([self.tool_format.call_grammar(lark, calls, several), whole])
        return self._after_reasoning(lark, whole, opened)

    def _after_reasoning(self, lark: Lark, answer: str, opened: bool) -> str:
        return lark.text(answer if self.tags is None else self.tags.prepend_to(lark, answer, opened))


def detect_format(template: str, calls: str | None = None, reasoning: str | None = None) -> ModelFormat:
    """By the source of the chat template; `calls` (one of FORMATS) and `reasoning` (one of REASONING), or "none" for
    either, is what the operator says instead. A template without any marks of calls gets the hermes format, in which
    tools are explained to models that know no tools. Raises ValueError for other names."""
    written = _format(template, calls)
    if written is not None and tool_format.marks_reasoning:
        return ModelFormat(written, None)
    return ModelFormat(written, _tags(template, reasoning))


def parse_format_name(text: str) -> tuple[str, str | None]:
    """What an operator says of a model, `calls` or `calls/reasoning`, as `detect_format` takes it. Raises ValueError."""
    calls, slash, reasoning = text.partition("/")
    detect_format("", calls, reasoning if slash else None)
    return calls, reasoning if slash else None


def _format(template: str, name: str | None) -> ToolFormat | None:
    if name is not None:
        return None if name == NONE else _named(FORMATS, name)()
    return next((kind() for kind, marks in _MARKS if all(mark in template for mark in marks)), Hermes())


def _tags(template: str, name: str | None) -> Tags | None:
    if name is not None:
        return None if name == NONE else _named(REASONING, name)
    return next((tags for tags in TAGS if tags.opening in template or tags.closing in template), None)


def _named(table: Mapping[str, T], name: str) -> T:
    if name not in table:
        raise ValueError(f"unknown name '{name}': expected one of {', '.join([*table, NONE])}")
    return table[name]
