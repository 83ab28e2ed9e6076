"""Finds the format in which a model writes calls and reasoning: the one that reads back what its template writes."""

from __future__ import annotations

from collections.abc import Collection
from time import thread_time

import msgspec

from adapter.generation.derived_format import derived_formats, derived_tags
from adapter.generation.probe_turns import ANSWER, LEVELS, REASONING, ProbeTurns, reading, reads
from adapter.generation.read_back import Turn
from adapter.prompt import ChatTemplate, TemplateTooSlow
from adapter.tools import (
    ModelFormat,
    Tags,
    ToolFormat,
    call_formats,
    parse_format_name,
    reasoning_tags,
    select_format,
)
from adapter.tools.derive import NAME as DERIVED
from subnet.errors import SettingsError

BUDGET = 3.0
"""Maximum CPU time to find a format, in seconds. A format that was not found by then is unknown."""

UNKNOWN = "unknown"


class FoundFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Format in which a model writes calls and reasoning, and the template that prompts it to do so.

    `tools` and `reasoning` are the names of the formats, for people: null if there is none, "derived" if it was derived
    from what the template writes, "unknown" if the template writes calls or reasoning in a way that no format reads.
    `refuses_tools`: tools cannot be offered at all.
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

    @property
    def derived(self) -> list[str]:
        """What no row of a table describes, and was derived from what the template writes, for the log."""
        named = (("tool calls", self.tools), ("reasoning", self.reasoning))
        return [what for what, name in named if name == DERIVED]


def find_format(
    template: ChatTemplate, setting: str | None = None, control: Collection[str] = (), budget: float = BUDGET
) -> FoundFormat:
    """Return the format of a model with this template, or that of the operator's `setting`.

    `control` are the texts of the model's control tokens. Renders and parses some conversations, which takes up to
    `budget`. Raises SettingsError if the template takes too much time or memory for one of them.
    """
    finder = _Finder(template, control, budget)
    try:
        return finder.find(*parse_format_name(setting) if setting is not None else (None, None))
    except TemplateTooSlow as error:
        raise SettingsError(
            "the chat template takes too much time or memory, even with a short conversation"
        ) from error


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
        self._turns = self._turns_of(template)

    def _turns_of(self, template: ChatTemplate) -> ProbeTurns:
        return ProbeTurns(template, self._control, self._deadline)

    def find(self, calls: str | None, reasoning: str | None) -> FoundFormat:
        source = self._template.source
        tags, known = self._tags() if reasoning is None else (select_format("", "none", reasoning).tags, True)
        if calls is not None:
            chosen = select_format(source, calls, "none").tool_format
            return self._found(chosen, tags, known, self._template)
        if self._template.supports_tools:
            if native := reading(call_formats(source), tags, self._turns) or self._derived(tags):
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
        turns = self._turns_of(template)
        if hermes is not None and reads(hermes, tags, turns, LEVELS[0]) and turns.renders_result():
            return found
        nothing = self._found(None, tags, known, self._template, unknown=True)
        return msgspec.structs.replace(nothing, refuses_tools=True)

    def _derived(self, tags: Tags | None) -> ToolFormat | None:
        """Return a format that no row describes, and that reads what the template writes."""
        return reading(list(derived_formats(self._turns, tags, self._control)), tags, self._turns)

    def _tags(self) -> tuple[Tags | None, bool]:
        """Return the tags that read back reasoning, and False if none do, though the template writes it."""
        options = reasoning_tags(self._template.source)
        turns = list(self._turns.reasoned())
        for tags in options:
            if any(_reads_reasoning(tags, turn) for turn in turns):
                return tags, True
        if any(REASONING in turn.text for turn in turns):
            derived = derived_tags(self._turns, self._control)
            read = derived and any(_reads_reasoning(derived, turn) for turn in turns)
            return (derived, True) if read else (None, False)
        opened = (tags for tags in options if any(turn.prompt.rstrip().endswith(tags.opening) for turn in turns))
        marked = reasoning_tags(self._template.source, marked=True)
        return next(opened, next(iter(marked), None)), True


def _reads_reasoning(tags: Tags, turn: Turn) -> bool:
    # The prompt may open reasoning, and the template leave that mark out of earlier messages.
    for each in (turn, msgspec.structs.replace(turn, start=turn.prompt)):
        read = each.read(ModelFormat(None, tags), {})
        if read.reasoning == REASONING and (ANSWER not in turn.text or read.content == ANSWER):
            return True
    return False
