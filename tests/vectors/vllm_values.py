"""Values with which vLLM's tests compare: those of the gateway, of which not everything counts."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from adapter.tools.reading.parts import Content, Reasoning, ToolArguments, ToolCallBegin


def not_offered(name: str) -> Any:
    pytest.skip(f"asks for {name}")


class Text(str):
    """Text, of which the white space around it does not count."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str.strip(self) == str.strip(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __add__(self, other: str) -> Text:
        return Text(str.__add__(self, other))

    def __radd__(self, other: str) -> Text:
        return Text(other + str(self))


class Json(str):
    """JSON, of which the spaces between values do not count."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and _loaded(self) == _loaded(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __add__(self, other: str) -> Json:
        return Json(str.__add__(self, other))


class Id(str):
    """Id of a call, which the gateway makes itself: a test that expects a certain one does not apply."""

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) if isinstance(other, Id) else bool(not_offered("the id of a call"))

    __hash__ = str.__hash__

    def __getattribute__(self, name: str) -> Any:
        return str.__getattribute__(self, name) if name.startswith("__") else not_offered("the id of a call")


def _loaded(text: str) -> object:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return str(text)


class Fields:
    """Object with the given fields; all others are None."""

    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *values: Any, **fields: Any) -> None:
        self.__dict__ |= {**self.defaults, **{name: _fields(value) for name, value in fields.items()}}

    @classmethod
    def model_validate(cls, fields: dict[str, Any]) -> Fields:
        return cls(**fields)

    def __getattr__(self, name: str) -> Any:
        return None if not name.startswith("__") else object.__getattribute__(self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and self._shown() == other._shown()

    def _shown(self) -> tuple[object, ...]:
        function = self if self.function is None else self.function
        return (function.name, _loaded(function.arguments or ""))

    def __hash__(self) -> int:
        return id(self)


def _fields(value: object) -> object:
    if isinstance(value, dict) and "name" in value:
        return Fields(**value)
    return value


class FunctionCall(Fields):
    pass


class ToolCall(Fields):
    defaults: ClassVar = {"type": "function", "id": "call_0"}


class ExtractedToolCallInformation(Fields):
    pass


class DeltaMessage(Fields):
    defaults: ClassVar = {"tool_calls": []}


class Collected:
    """Parts that become the fields of a message."""

    def __init__(self, parts: Sequence[object]) -> None:
        self.content = Text("".join(part.text for part in parts if isinstance(part, Content)))
        self.reasoning = Text("".join(part.text for part in parts if isinstance(part, Reasoning)))
        self.calls = dict[int, ToolCall]()
        self.is_first = dict[int, bool]()
        for part in parts:
            if isinstance(part, ToolCallBegin):
                function = FunctionCall(name=part.name, arguments=Json(""))
                self.calls[part.index] = ToolCall(
                    index=part.index, id=Id(f"call_{secrets.token_hex(12)}"), function=function
                )
            elif isinstance(part, ToolArguments):
                own = ToolCall(index=part.index, id=None, function=FunctionCall(name=None, arguments=Json("")))
                self.calls.setdefault(part.index, own).function.arguments += part.text

    def delta(self) -> DeltaMessage | None:
        if not (self.content or self.reasoning or self.calls):
            return None
        calls = list(self.calls.values())
        return DeltaMessage(content=self.content or None, reasoning=self.reasoning or None, tool_calls=calls)
