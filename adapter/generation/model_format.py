"""Finds the format in which a model writes calls and reasoning: the one that reads back what its template writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from time import thread_time
from typing import Any

import msgspec

from adapter.generation.read_back import Message, Turn, written_turn
from adapter.prompt import QUESTION, REASONING_ON, ChatTemplate
from adapter.tools import (
    ModelFormat,
    Tags,
    ToolFormat,
    call_formats,
    parse_format_name,
    reasoning_tags,
    select_format,
)
from subnet.errors import InvalidRequest

BUDGET = 3.0
"""Maximum CPU time to find a format, in seconds. A format that was not found by then is unknown."""

UNKNOWN = "unknown"

_NAME = "probed_function"
_RESULT = "probed_result"
_REASONING = "probed reasoning"
_ANSWER = "probed answer"
_PROPERTIES: Mapping[str, dict[str, Any]] = {
    "city": {"type": "string"},
    "note": {"type": "string"},
    "days": {"type": "integer"},
    "exact": {"type": "boolean"},
    "place": {"type": "object", "properties": {"name": {"type": "string"}, "at": {"type": "array"}}},
    "ids": {"type": "array", "items": {"type": "integer"}},
}
# Arguments of calls, from those that only a template without faults writes to those that every template can write.
_LEVELS: tuple[Mapping[str, Any], ...] = (
    {
        "city": "Z\u00fcrich (old town)",
        "note": "say \"yes\",\nthen 'no' \\ {stop}",
        "days": 3,
        "exact": True,
        "place": {"name": "x y", "at": [1.5, {"z": None}]},
        "ids": [1, 2],
    },
    {"city": "Oslo", "days": 3},
    {"city": "Oslo"},
)
_SIMPLEST = _LEVELS[-1]


class FoundFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Format in which a model writes calls and reasoning, and the template that prompts it to do so.

    `tools` and `reasoning` are the names of the formats, for people: null if there is none, "unknown" if the template
    writes calls or reasoning in a way that no format reads. `refuses_tools`: tools cannot be offered at all.
    """

    format: ModelFormat
    template: ChatTemplate
    tools: str | None
    reasoning: str | None
    refuses_tools: bool = False

    @property
    def problems(self) -> list[str]:
        """Sentences for the log on what is unknown."""
        found = []
        if self.refuses_tools:
            found.append("it is unknown how it writes tool calls, so requests with tools are refused")
        elif self.tools == UNKNOWN:
            found.append("it is unknown how it writes tool calls, so tools are explained to it in its messages")
        if self.reasoning == UNKNOWN:
            found.append("it is unknown how it marks reasoning, which may appear in the content of answers")
        return found


def find_format(
    template: ChatTemplate, setting: str | None = None, control: Collection[str] = (), budget: float = BUDGET
) -> FoundFormat:
    """Return the format of a model with this template, or that of the operator's `setting`.

    `control` are the texts of the model's control tokens. Renders and parses some conversations, which takes up to
    `budget`.
    """
    return _Finder(template, control, budget).find(*parse_format_name(setting) if setting is not None else (None, None))


def find_format_of_two(
    usual: ChatTemplate, for_tools: ChatTemplate, setting: str | None = None, control: Collection[str] = ()
) -> FoundFormat:
    """Return the format of a model that has a template of its own for tools: that of `for_tools`, unless it is unknown.
    Reasoning that this template does not have is that of the `usual` one.
    """
    found, other = find_format(for_tools, setting, control), find_format(usual, setting, control)
    if not found.template.supports_tools or found.tools == UNKNOWN:
        return other
    if found.reasoning is not None:
        return found
    both = ModelFormat(found.format.tool_format, other.format.tags)
    return msgspec.structs.replace(found, format=both, reasoning=other.reasoning)


class _Finder:
    def __init__(self, template: ChatTemplate, control: Collection[str], budget: float) -> None:
        self._template = template
        self._control = control
        self._deadline = thread_time() + budget
        self._turns: dict[tuple[bool, str], Turn | None] = {}

    def find(self, calls: str | None, reasoning: str | None) -> FoundFormat:
        source = self._template.source
        tags, known = self._tags() if reasoning is None else (select_format("", "none", reasoning).tags, True)
        if calls is not None:
            chosen = select_format(source, calls, "none").tool_format
            return self._found(chosen, tags, known, self._template)
        if self._template.supports_tools:
            if native := self._native(tags):
                return self._found(native, tags, known, self._template)
        elif own := next((each for each in call_formats(source, marked=True) if each.marks_reasoning), None):
            return self._found(own, tags, known, self._template)
        return self._as_text(tags, known)

    def _found(
        self, calls: ToolFormat | None, tags: Tags | None, known: bool, template: ChatTemplate, unknown: bool = False
    ) -> FoundFormat:
        if calls is not None and calls.marks_reasoning:
            tags, known = None, True
        name = None if calls is None else calls.name
        return FoundFormat(
            format=ModelFormat(calls, tags),
            template=template,
            tools=UNKNOWN if unknown else name,
            reasoning=UNKNOWN if not known else None if tags is None else tags.name,
        )

    def _as_text(self, tags: Tags | None, known: bool) -> FoundFormat:
        """Return the format of tools as text, if the template renders them."""
        hermes, template = select_format("", "hermes").tool_format, self._template.describing_tools()
        found = self._found(hermes, tags, known, template, unknown=self._template.supports_tools)
        if hermes is not None and self._reads(hermes, tags, template, _LEVELS[0]) and self._renders_result(template):
            return found
        nothing = self._found(None, tags, known, self._template, unknown=True)
        return msgspec.structs.replace(nothing, refuses_tools=True)

    def _native(self, tags: Tags | None) -> ToolFormat | None:
        """Return the format that reads what the template writes, of all arguments if possible."""
        formats = call_formats(self._template.source)
        for arguments in _LEVELS:
            for each in formats:
                if thread_time() < self._deadline and self._reads(each, tags, self._template, arguments):
                    return each
        return None

    def _reads(
        self, calls: ToolFormat, tags: Tags | None, template: ChatTemplate, arguments: Mapping[str, Any]
    ) -> bool:
        """Return True if `calls` reads a call with `arguments`, and two calls unless the template writes only one."""
        model_format = ModelFormat(calls, None if calls.marks_reasoning else tags)
        two = [{"city": "Bergen"}, arguments]
        return self._reads_calls(model_format, template, [arguments]) and (
            self._reads_calls(model_format, template, two) or not self._writes(template, two)
        )

    def _reads_calls(
        self, model_format: ModelFormat, template: ChatTemplate, arguments: Sequence[Mapping[str, Any]]
    ) -> bool:
        turn = self._calls(template, arguments)
        expected = Message(calls=tuple((_NAME, each) for each in arguments))
        schemas = {_NAME: _schema(*arguments)}
        return turn is not None and turn.read(model_format, schemas) == expected

    def _writes(self, template: ChatTemplate, arguments: Sequence[Mapping[str, Any]]) -> bool:
        turn = self._calls(template, arguments)
        return turn is not None and all(each["city"] in turn.text for each in arguments)

    def _calls(self, template: ChatTemplate, arguments: Sequence[Mapping[str, Any]]) -> Turn | None:
        """Return what the template writes for calls with `arguments`. Rendered once: many formats may be tried."""
        key = (template.supports_tools, repr(arguments))
        if key not in self._turns:
            self._turns[key] = self._turn(template, _assistant(*arguments), tools=_tools(*arguments))
        return self._turns[key]

    def _renders_result(self, template: ChatTemplate) -> bool:
        messages = [QUESTION, _assistant(_SIMPLEST), {"role": "tool", "tool_call_id": "call00000", "content": _RESULT}]
        try:
            text = template.render(messages, tools=_tools(_SIMPLEST), deadline=self._deadline)
        except InvalidRequest:
            return False
        return text.count(_NAME) > 1 and _RESULT in text

    def _tags(self) -> tuple[Tags | None, bool]:
        """Return the tags that read back reasoning, and False if none do, though the template writes it."""
        options = reasoning_tags(self._template.source)
        turns = list(self._reasoned_turns())
        for tags in options:
            if any(self._reads_reasoning(tags, turn) for turn in turns):
                return tags, True
        if any(_REASONING in turn.text for turn in turns):
            return None, False
        opened = (tags for tags in options if any(turn.prompt.rstrip().endswith(tags.opening) for turn in turns))
        marked = reasoning_tags(self._template.source, marked=True)
        return next(opened, next(iter(marked), None)), True

    def _reasoned_turns(self) -> Iterator[Turn]:
        """Yield turns with reasoning: many templates drop it from some messages, or unless a variable is set."""
        answer = {"role": "assistant", "content": _ANSWER, "reasoning_content": _REASONING}
        for variables in ({}, REASONING_ON):
            for message in (answer, {**_assistant(_SIMPLEST), "reasoning_content": _REASONING}):
                if turn := self._turn(self._template, message, variables=variables):
                    yield turn

    def _reads_reasoning(self, tags: Tags, turn: Turn) -> bool:
        # The prompt may open reasoning, and the template leave that mark out of earlier messages.
        for each in (turn, msgspec.structs.replace(turn, start=turn.prompt)):
            read = each.read(ModelFormat(None, tags), {})
            if read.reasoning == _REASONING and (_ANSWER not in turn.text or read.content == _ANSWER):
                return True
        return False

    def _turn(
        self,
        template: ChatTemplate,
        message: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> Turn | None:
        shown = tools or _tools(_SIMPLEST)
        return written_turn(
            template, message, shown, control=self._control, variables=variables, deadline=self._deadline
        )


def _tools(*arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    function = {"name": _NAME, "description": "Probe", "parameters": _schema(*arguments)}
    return [{"type": "function", "function": function}]


def _schema(*arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of the properties in `arguments` only: some templates refuse nested schemas."""
    names = {name: None for each in arguments for name in each}
    properties = {name: {**_PROPERTIES[name], "description": name} for name in names}
    return {"type": "object", "properties": properties, "required": ["city"]}


def _assistant(*arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with a call of each of `arguments`."""
    calls = [
        # Mistral's templates require ids of nine letters and digits.
        {"id": f"call0000{index}", "type": "function", "function": {"name": _NAME, "arguments": each}}
        for index, each in enumerate(arguments)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}
