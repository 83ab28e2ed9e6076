"""Conversations that are rendered to find out how a model writes calls and reasoning."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from time import thread_time
from typing import Any

from adapter.generation.read_back import Message, Turn, written_turn
from adapter.prompt import QUESTION, REASONING_ON, ChatTemplate, TemplateTooSlow
from adapter.tools import ModelFormat, Tags, ToolFormat
from subnet.errors import InvalidRequest

NAME = "probed_function"
IDS = r"call0000\d"
"""Regular expression of the ids of calls. Mistral's templates require nine letters and digits."""
_RESULT = "probed_result"
REASONING = "probed reasoning"
ANSWER = "probed answer"
_PROPERTIES: Mapping[str, dict[str, Any]] = {
    "city": {"type": "string"},
    "note": {"type": "string"},
    "days": {"type": "integer"},
    "exact": {"type": "boolean"},
    "place": {"type": "object", "properties": {"name": {"type": "string"}, "at": {"type": "array"}}},
    "ids": {"type": "array", "items": {"type": "integer"}},
}
# Arguments of calls, from those that only a template without faults writes to those that every template can write.
LEVELS: tuple[Mapping[str, Any], ...] = (
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
SIMPLEST = LEVELS[-1]


class ProbeTurns:
    """Turns that `template` writes for probe messages; None if it rejects the message.

    They are rendered before `deadline`, in CPU time of this thread. `control` are the texts of control tokens. All
    methods that render raise TemplateTooSlow.
    """

    def __init__(self, template: ChatTemplate, control: Collection[str], deadline: float) -> None:
        self.template = template
        self._control = control
        self._deadline = deadline
        self._turns: dict[str, Turn | None] = {}

    @property
    def expired(self) -> bool:
        """True once the time for rendering is used up."""
        return thread_time() >= self._deadline

    def calls(self, *arguments: Mapping[str, Any], content: str = "") -> Turn | None:
        """Return the turn with `content` and a call with each of `arguments`; None if the template takes only one call.

        Rendered once: many formats are tried.
        """
        if len(arguments) > 1 and self.template.features.form.single_calls:
            return None
        key = repr((arguments, content))
        if key not in self._turns:
            message = {**_assistant(*arguments), "content": content}
            self._turns[key] = self._turn(message, _tools(*arguments))
        return self._turns[key]

    def writes_calls(self, *arguments: Mapping[str, Any]) -> bool:
        """Return True if the template writes a call with each of `arguments`."""
        turn = self.calls(*arguments)
        return turn is not None and all(each["city"] in turn.text for each in arguments)

    def answer(self) -> Turn | None:
        """Return a turn with content only."""
        return self._turn({"role": "assistant", "content": ANSWER}, _tools(SIMPLEST))

    def reasoned(self) -> Iterator[Turn]:
        """Yield turns with reasoning: many templates drop it from some messages, or unless a variable is set."""
        answer = {"role": "assistant", "content": ANSWER, "reasoning_content": REASONING}
        for variables in ({}, REASONING_ON):
            for message in (answer, {**_assistant(SIMPLEST), "reasoning_content": REASONING}):
                if turn := self._turn(message, _tools(SIMPLEST), variables):
                    yield turn

    def renders_result(self) -> bool:
        """Return True if the template renders a call and its result."""
        messages = [QUESTION, _assistant(SIMPLEST), {"role": "tool", "tool_call_id": "call00000", "content": _RESULT}]
        try:
            text = self.template.render(messages, tools=_tools(SIMPLEST), deadline=self._deadline)
        except TemplateTooSlow:
            raise
        except InvalidRequest:
            return False
        return text.count(NAME) > 1 and _RESULT in text

    def _turn(
        self,
        message: Mapping[str, Any],
        tools: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
    ) -> Turn | None:
        return written_turn(
            self.template, message, tools, control=self._control, variables=variables, deadline=self._deadline
        )


def reading(formats: Sequence[ToolFormat], tags: Tags | None, turns: ProbeTurns) -> ToolFormat | None:
    """Return the first of `formats` that reads what the template writes, of all arguments if possible."""
    for arguments in LEVELS:
        for each in formats:
            if not turns.expired and reads(each, tags, turns, arguments):
                return each
    return None


def reads(calls: ToolFormat, tags: Tags | None, turns: ProbeTurns, arguments: Mapping[str, Any]) -> bool:
    """Return True if `calls` reads a call with `arguments`, and two calls unless the template writes only one."""
    model_format = ModelFormat(calls, None if calls.marks_reasoning else tags)
    two = ({"city": "Bergen"}, arguments)
    return _reads_calls(model_format, turns, arguments) and (
        _reads_calls(model_format, turns, *two) or not turns.writes_calls(*two)
    )


def _reads_calls(model_format: ModelFormat, turns: ProbeTurns, *arguments: Mapping[str, Any]) -> bool:
    turn = turns.calls(*arguments)
    expected = Message(calls=tuple((NAME, each) for each in arguments))
    return turn is not None and turn.read(model_format, {NAME: schema(*arguments)}) == expected


def _tools(*arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    function = {"name": NAME, "description": "Probe", "parameters": schema(*arguments)}
    return [{"type": "function", "function": function}]


def schema(*arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of the properties in `arguments` only: some templates refuse nested schemas."""
    names = {name: None for each in arguments for name in each}
    properties = {name: {**_PROPERTIES[name], "description": name} for name in names}
    return {"type": "object", "properties": properties, "required": ["city"]}


def _assistant(*arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with a call of each of `arguments`."""
    calls = [
        {"id": f"call0000{index}", "type": "function", "function": {"name": NAME, "arguments": each}}
        for index, each in enumerate(arguments)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}
