"""Conversations that are rendered to find out what a chat template supports."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from jinja2 import Undefined

from adapter.prompt.jinja_template import JinjaTemplate
from adapter.prompt.message_form import REASONING_FIELDS, Ids, Message, MessageForm, ReasoningField
from adapter.prompt.metered.budget import Budget, BudgetExceeded

UNITS = 500_000
"""Units of work of all probes of a template, several times what any published template takes."""

REASONING_ON: Mapping[str, Any] = {"enable_thinking": True, "thinking": True}
"""Variables that turn reasoning on in templates where it is off by default."""

# A noncharacter, so that no template has it, or changes it.
_TEXT = "\ufdd0"
_NEXT = "\ufdd1"
_NAME = "probed_function"
_RESULT = "probed_result"
_VALUE = "probed_value"
# As Python would write it, but JSON would not.
_REPRESENTATION = f"'x': '{_VALUE}'"
# Mistral's templates require ids of nine letters and digits.
_ID, _OTHER_ID = "call00001", "call00002"
_LONG_ID = "call_" + 24 * "0"

QUESTION: Message = {"role": "user", "content": "x"}
NO_SYSTEM: Message = {"role": "system", "content": ""}

_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "x",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "string", "description": "x"}},
            "required": ["x"],
        },
    },
}
_UNDESCRIBED: dict[str, Any] = {
    "type": "function",
    "function": {"name": _NAME, "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}},
}
_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": _ID, "type": "function", "function": {"name": _NAME, "arguments": {"x": _VALUE}}}],
}
_TOOL_RESULT: Message = {"role": "tool", "tool_call_id": _ID, "name": _NAME, "content": _RESULT}


def _with_ids(ids: Sequence[str]) -> list[Message]:
    """Return a message with calls of these ids, and their results."""
    call, results = _CALL["tool_calls"][0], [{**_TOOL_RESULT, "tool_call_id": own} for own in ids]
    return [{**_CALL, "tool_calls": [{**call, "id": own} for own in ids]}, *results]


_BEFORE: Mapping[str, Sequence[Message]] = {
    "user": (),
    "system": (),
    "assistant": (QUESTION,),
    "tool": (QUESTION, _CALL),
}
_AFTER: Mapping[str, Sequence[Message]] = {"system": (QUESTION,)}


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What a template supports.

    `no_tools` is what `tools` must be where there are none; Undefined: it must not be set. `renders_tools`: tools,
    calls and their results. `tools_need_system`: it shows tools after a system message only, and `descriptions`: those
    that have one, and whose properties do. `form` is the form in which it expects messages.
    """

    no_tools: object
    renders_system: bool
    renders_tools: bool
    tools_need_system: bool
    descriptions: Literal["none", "functions", "properties"]
    form: MessageForm


def find_features(template: JinjaTemplate, source: str) -> Features:
    """Return what a template supports. Takes milliseconds. Raises BudgetExceeded if the probes exceed UNITS."""
    return _Prober(template).features(developer="developer" in source)


class _Prober:
    def __init__(self, template: JinjaTemplate) -> None:
        self._template = template
        self._units = UNITS
        self._no_tools: object = None
        self._form = MessageForm(several=frozenset(_BEFORE))

    def features(self, developer: bool) -> Features:
        options: tuple[object, ...] = (None, Undefined, [])
        self._no_tools = next((value for value in options if self._accepts(value)), None)
        self._find_contents()
        self._form = msgspec.structs.replace(self._form, ids=self._ids(), developer=developer)
        self._form = msgspec.structs.replace(self._form, encoded=self._needs_encoded())
        self._form = msgspec.structs.replace(self._form, reasoning=self._reasoning())
        self._form = msgspec.structs.replace(
            self._form,
            single_calls=self._needs_single_calls(),
            filled=self._needs_filled(),
            joined=self._needs_joined(),
        )
        shows_tools = _NAME in self._render([QUESTION], tools=[_TOOL])
        shows_after_system = _NAME in self._render([NO_SYSTEM, QUESTION], tools=[_TOOL])
        return Features(
            no_tools=self._no_tools,
            renders_system=_TEXT in self._render([{"role": "system", "content": _TEXT}, QUESTION]),
            renders_tools=(shows_tools or shows_after_system) and self._renders_calls(),
            tools_need_system=shows_after_system and not shows_tools,
            descriptions=self._descriptions(),
            form=self._form,
        )

    def _descriptions(self) -> Literal["none", "functions", "properties"]:
        if self._shows_tool(_UNDESCRIBED):
            return "none"
        return "functions" if self._shows_tool(described(_UNDESCRIBED)) else "properties"

    def _shows_tool(self, tool: Mapping[str, Any]) -> bool:
        messages = ([QUESTION], [NO_SYSTEM, QUESTION])
        return any(_NAME in self._render(each, tools=[tool]) for each in messages)

    def _accepts(self, no_tools: object) -> bool:
        self._no_tools = no_tools
        as_parts = {**QUESTION, "content": [{"type": "text", "text": "x"}]}
        return any(self._render([message]) for message in (QUESTION, as_parts))

    def _find_contents(self) -> None:
        for role in _BEFORE:  # users first: their messages precede others
            text = self._shows(role, _TEXT)
            parts = self._shows(role, [{"type": "text", "text": _TEXT}, {"type": "text", "text": _NEXT}])
            lists = parts and not text
            if not text and not parts:  # the template may refuse the role, or drop such messages
                lists = "user" in self._form.lists
            self._form = msgspec.structs.replace(
                self._form,
                lists=self._form.lists | ({role} if lists else set()),
                several=self._form.several if parts else self._form.several - {role},
            )

    def _shows(self, role: str, content: object) -> bool:
        """Return True if content of this form is rendered as text, and not as the representation of a list."""
        message = {"role": role, "content": content, "tool_call_id": _ID, "name": _NAME}
        text = self._render([*_BEFORE[role], message, *_AFTER.get(role, ())])
        return all(_is_written(probe, text) for probe in ((_TEXT,) if isinstance(content, str) else (_TEXT, _NEXT)))

    def _ids(self) -> Ids:
        calls = self._render([QUESTION, _CALL])
        if _ID in calls and _NAME not in calls:
            return "naming"
        tools = [_TOOL]
        is_short = self._render([QUESTION, _CALL, _TOOL_RESULT], tools=tools) and not self._render(
            [QUESTION, *_with_ids([_LONG_ID])], tools=tools
        )
        return "short" if is_short else "any"

    def _needs_single_calls(self) -> bool:
        two = self._render([QUESTION, *_with_ids([_ID, _OTHER_ID])], tools=[_TOOL])
        return not two and self._renders_calls()

    def _needs_joined(self) -> bool:
        """Return True if calls after both reasoning and a text are rejected."""
        reasoned = {**_CALL, "reasoning_content": "x"}
        both, one = (self._render([QUESTION, call, _TOOL_RESULT]) for call in ({**reasoned, "content": "x"}, reasoned))
        return not both and bool(one)

    def _needs_filled(self) -> bool:
        """Return True if an answer without text is rejected."""
        empty, text = ([QUESTION, {"role": "assistant", "content": content}, QUESTION] for content in ("", "x"))
        return not self._render(empty) and bool(self._render(text))

    def _needs_encoded(self) -> bool:
        """Return True if calls are not rendered as they should be unless their arguments are JSON text."""
        if self._renders_calls() and _REPRESENTATION not in self._render([QUESTION, _CALL], tools=[_TOOL]):
            return False
        objects, self._form = self._form, msgspec.structs.replace(self._form, encoded=True)
        encoded = self._renders_calls() and f'"{_VALUE}"' in self._render([QUESTION, _CALL], tools=[_TOOL])
        self._form = objects
        return encoded or not self._renders_calls()

    def _reasoning(self) -> ReasoningField:
        """Return the field whose text is rendered, by default the first."""
        for field in REASONING_FIELDS:
            self._form = msgspec.structs.replace(self._form, reasoning=field)
            if any(_is_written(_TEXT, text) for text in self._reasoned()):
                return field
        return REASONING_FIELDS[0]

    def _reasoned(self) -> Iterator[str]:
        """Yield conversations with reasoning: many templates drop it unless the last question led to it."""
        for variables in ({}, REASONING_ON):
            yield self._render(
                [QUESTION, {"role": "assistant", "content": "x", "reasoning_content": _TEXT}], **variables
            )
            called = {**_CALL, "reasoning_content": _TEXT}
            yield self._render([QUESTION, called, _TOOL_RESULT], **variables)

    def _renders_calls(self) -> bool:
        text = self._render([QUESTION, _CALL, _TOOL_RESULT], tools=[_TOOL])
        return _VALUE in text and _RESULT in text

    def _render(self, messages: Sequence[Message], tools: object = None, **variables: object) -> str:
        """Return the rendered text, or "" if the template rejects the messages."""
        shown = self._no_tools if tools is None else tools
        context = {**variables, "messages": self._form.adapt(messages), "add_generation_prompt": False}
        budget = Budget(self._units)
        try:
            return self._template.render(copy.deepcopy(context) | with_tools(copy.deepcopy(shown)), budget)
        except BudgetExceeded:
            raise
        except Exception:  # templates can raise any exception for messages that they do not support
            return ""
        finally:
            self._units = budget.left


def described(tool: Mapping[str, Any], properties: bool = False) -> dict[str, Any]:
    """Return a tool whose function has a description, as do with `properties` those of its parameters."""
    function = {"description": "", **tool["function"]}
    schemas = function["parameters"].get("properties")
    if properties and isinstance(schemas, dict):
        own = {
            name: {"description": "", **schema} if isinstance(schema, dict) else schema
            for name, schema in schemas.items()
        }
        function["parameters"] = {**function["parameters"], "properties": own}
    return {**tool, "function": function}


def _is_written(probe: str, text: str) -> bool:
    """Return True if `probe` is in the text, and not in the representation of a list of parts."""
    return probe in text and "'type'" not in text and '"type"' not in text


def with_tools(tools: object) -> dict[str, object]:
    """Return the variable `tools`; none if they are Undefined."""
    return {} if tools is Undefined else {"tools": tools}
