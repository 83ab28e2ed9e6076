"""Selection of a model's format of tool calls and reasoning, by its chat template or by the operator's setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from adapter.tools.formats.base import ToolFormat
from adapter.tools.formats.braces import BRACE_SYNTAXES, BraceFormat
from adapter.tools.formats.harmony import Harmony
from adapter.tools.formats.json_calls import JsonCalls
from adapter.tools.formats.json_families import DEEPSEEK, STYLES
from adapter.tools.formats.kimi_k3 import KimiK3
from adapter.tools.formats.pythonic import PYTHON_STYLES, Pythonic
from adapter.tools.formats.tag_families import TAG_FORMATS, TAG_MARKS
from adapter.tools.grammar.lark import Lark
from adapter.tools.grammar.reasoning import TAGS, Tags
from adapter.tools.parser import Parser, Reader
from adapter.tools.reading.source import Tools

T = TypeVar("T")
NONE = "none"

_FORMATS: tuple[ToolFormat, ...] = (
    *map(JsonCalls, STYLES),
    *map(Pythonic, PYTHON_STYLES),
    KimiK3(),
    *TAG_FORMATS,
    *map(BraceFormat, BRACE_SYNTAXES),
    Harmony(),
)
FORMATS: Mapping[str, ToolFormat] = {tool_format.name: tool_format for tool_format in _FORMATS}

# Marks in the chat template, by format. The first format whose marks are all present is selected, so more specific
# formats come first.
_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>", "<|message|>")),
    ("kimi_k3", ("<|open|>", "<|sep|>", "open_tag('tools')")),
    ("kimi_k2", ("<|tool_call_argument_begin|>",)),
    ("gemma4", ("<|tool_call>", '<|"|>')),
    ("functiongemma", ("<start_function_call>",)),
    *TAG_MARKS,
    ("deepseek_v3", (DEEPSEEK.section[0], "```json")),
    ("deepseek", (DEEPSEEK.section[0],)),
    ("mistral_args", ("[TOOL_CALLS]", "[ARGS]")),
    ("mistral", ("[TOOL_CALLS]",)),
    ("cohere", ("<|START_ACTION|>",)),
    ("command_r_plus", ("Action:", "```json", '"tool_name"')),
    ("apertus", ("<|tools_prefix|>",)),
    ("nemotron", ("<TOOLCALL>",)),
    ("longcat", ("<longcat_tool_call>",)),
    ("internlm2", ("<|action_start|>", "<|plugin|>")),
    ("gigachat3_1", ("<|function_call|>",)),
    ("gigachat", ("<|message_sep|>", "function call", "<|role_sep|>")),
    ("minimax_m1", ("<tool_calls>", "<beginning_of_sentence>")),
    ("hunyuan", ("<tool_calls>",)),
    ("phi4_mini", ("functools",)),
    ("phi4_mini", ("<|/tool_call|>",)),
    ("granite", ("<|tool_call|>",)),
    ("granite_20b", ("<function_call>",)),
    ("functionary", ("<function=",)),
    ("functionary_v3_2", (">>>all",)),
    ("hermes", ("<tool_call>",)),
    ("xlam", ("in a single JSON array",)),
    ("olmo3", ("<function_calls>",)),
    ("pythonic", ("<|python_start|>",)),
    ("pythonic", ("<|tool_call_start|>",)),
    ("pythonic", ("<|tool_list_start|>",)),
    ("pythonic", ("List of tools: [",)),
    ("pythonic", ("func_name1(",)),
    ("llama3_json", ("<|python_tag|>",)),
    ("llama3_json", ('"parameters"', "<|start_header_id|>")),
    ("llama3_json", ('"parameters"', "<|header_start|>")),
)
REASONING: Mapping[str, Tags] = {tags.name: tags for tags in TAGS}


class ModelFormat(msgspec.Struct, frozen=True):
    """Format in which a model writes tool calls and reasoning. Creates parsers and grammars. None: not supported."""

    tool_format: ToolFormat | None
    tags: Tags | None

    def for_vocabulary(self, pieces: Sequence[bytes]) -> ModelFormat:
        """Return the format for a model whose token i has the bytes `pieces[i]`. May take a second."""
        if isinstance(self.tool_format, Harmony):
            return ModelFormat(Harmony.for_vocabulary(pieces), self.tags)
        return self

    @property
    def visible_marks(self) -> tuple[str, ...]:
        """Marks that the detokenizer must output even if they are control tokens."""
        marks = () if self.tool_format is None else self.tool_format.visible_marks
        return marks if self.tags is None else (*marks, *self.tags.marks)

    def parser(self, tools: Tools | None = None, in_reasoning: bool = False) -> Parser | None:
        """Return a parser for one choice, or None if there is nothing to parse. Calls are parsed only with `tools`, the
        functions that may be called. `in_reasoning`: the text starts within reasoning.
        """
        readers: list[Reader] = []
        if self.tags is not None:
            readers.append(partial(self.tags.parse, in_reasoning=in_reasoning, calls=self.tool_format))
        if self.tool_format is not None and (tools or self.tool_format.marks_text):
            readers.append(self.tool_format.parse)
        return Parser(readers, tools or {}) if readers else None

    def call_grammar(self, tools: Tools, several: bool, special: Mapping[str, int], in_reasoning: bool = False) -> str:
        """Return a grammar, in llguidance's Lark dialect, that forces one call, or with `several` one or more. Each is
        to one of `tools` (at least one), with arguments that fit its schema. Reasoning may precede it.

        `special` has the ids of the model's control tokens by text: a mark among them is matched as that token. Models
        without a format of calls get the hermes format. Raises UnsupportedSchema if the format cannot enforce a schema.
        A schema that llguidance does not support raises only when the grammar is compiled.
        """
        lark = Lark(special)
        return self._after_reasoning(
            lark, (self.tool_format or FORMATS["hermes"]).call_grammar(lark, tools, several), in_reasoning
        )

    def free_grammar(
        self, tools: Tools, several: bool, special: Mapping[str, int], in_reasoning: bool = False
    ) -> str | None:
        """Return a grammar for any text, with or without calls at its end, which are as in `call_grammar`. Returns None
        for models without a format of calls, in whose answers calls are not parsed. Raises UnsupportedSchema.
        """
        if self.tool_format is None:
            return None
        lark = Lark(special)
        return lark.text(self.tool_format.free_grammar(lark, tools, several, self.tags, in_reasoning))

    def content_grammar(
        self,
        body: str,
        special: Mapping[str, int],
        in_reasoning: bool = False,
        tools: Tools | None = None,
        several: bool = True,
    ) -> str | None:
        """Return a grammar for an answer with the content `body`, a Lark expression such as `%json {...}`, which
        reasoning may precede. With `tools` calls to them are allowed instead of content. Returns None if the content is
        all that the model can write. Raises UnsupportedSchema.
        """
        calls = tools if self.tool_format else None
        if self.tags is None and not calls and not (self.tool_format and self.tool_format.marks_text):
            return None
        lark = Lark(special)
        whole = lark.rule(body) if self.tags is None else self.tags.around(lark, lark.rule(body))
        if self.tool_format is not None:
            whole = self.tool_format.content_grammar(lark, whole)
            if calls:
                whole = lark.one_of([self.tool_format.call_grammar(lark, calls, several), whole])
        return self._after_reasoning(lark, whole, in_reasoning)

    def _after_reasoning(self, lark: Lark, answer: str, in_reasoning: bool) -> str:
        return lark.text(answer if self.tags is None else self.tags.prepend_to(lark, answer, in_reasoning))


def select_format(template: str, calls: str | None = None, reasoning: str | None = None) -> ModelFormat:
    """Select a format by the source of the chat template, or by name: `calls` is one of FORMATS, `reasoning` one of
    REASONING, and either may be "none". A template without marks of calls gets the hermes format, in which the prompt
    then explains tools to the model. Raises ValueError for unknown names.
    """
    tool_format = _tool_format(template, calls)
    if tool_format is not None and tool_format.marks_reasoning:
        return ModelFormat(tool_format, None)
    return ModelFormat(tool_format, _tags(template, reasoning))


def call_formats(template: str, marked: bool = False) -> list[ToolFormat]:
    """Return the formats of calls that a model with this template may have, the most likely first: all of those whose
    marks the template has, then, unless only `marked` ones are wanted, the others.
    """
    found = [name for name, marks in _MARKS if all(mark in template for mark in marks)]
    return [FORMATS[name] for name in dict.fromkeys(found if marked else [*found, *FORMATS])]


def reasoning_tags(template: str, marked: bool = False) -> list[Tags]:
    """Return the tags of reasoning that a model with this template may have, in the order of `call_formats`."""
    found = [tags for tags in TAGS if tags.are_in(template)]
    return found if marked else [*found, *(tags for tags in TAGS if tags not in found)]


def parse_format_name(text: str) -> tuple[str, str | None]:
    """Parse an operator's setting, `calls` or `calls/reasoning`, to arguments of `select_format`. Raises ValueError."""
    calls, slash, reasoning = text.partition("/")
    select_format("", calls, reasoning if slash else None)
    return calls, reasoning if slash else None


def _tool_format(template: str, name: str | None) -> ToolFormat | None:
    if name is not None:
        return None if name == NONE else _look_up(FORMATS, name)
    named = (name for name, marks in _MARKS if all(mark in template for mark in marks))
    return FORMATS[next(named, "hermes")]


def _tags(template: str, name: str | None) -> Tags | None:
    if name is not None:
        return None if name == NONE else _look_up(REASONING, name)
    return next((tags for tags in TAGS if tags.are_in(template)), None)


def _look_up(table: Mapping[str, T], name: str) -> T:
    if name not in table:
        raise ValueError(f"unknown name '{name}': expected one of {', '.join([*table, NONE])}")
    return table[name]
