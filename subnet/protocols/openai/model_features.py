"""What a server's model list says that a model can do, in each server's format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

# OpenRouter: parameters. Ollama and LM Studio: lists of capabilities. Mistral: an object of them.
_TOOLS = frozenset({"tools", "tool_use", "function_calling"})
_REASONING = frozenset({"reasoning", "include_reasoning", "reasoning_effort", "thinking"})
_MAX_PARAMETERS, _MAX_NAME = 64, 64


class ModelFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """Features of a model. None, or no `parameters`: the server does not say."""

    tools: bool | None = None
    reasoning: bool | None = None
    parameters: tuple[str, ...] = ()


def features_of(entry: dict[str, Any]) -> ModelFeatures:
    """Return the features of an entry of a model list.

    A list of parameters or capabilities is complete: what it does not have, the model does not support. An object says
    only what it names.
    """
    parameters = _names(entry.get("supported_parameters"))
    capabilities = entry.get("capabilities")
    if parameters:
        return ModelFeatures(
            tools=_any(_TOOLS, parameters), reasoning=_any(_REASONING, parameters), parameters=parameters
        )
    if names := _names(capabilities):
        return ModelFeatures(tools=_any(_TOOLS, names), reasoning=_any(_REASONING, names))
    if isinstance(capabilities, dict):
        return ModelFeatures(tools=_value(_TOOLS, capabilities), reasoning=_value(_REASONING, capabilities))
    return ModelFeatures()


def _names(value: Any) -> tuple[str, ...]:
    names = value[:_MAX_PARAMETERS] if isinstance(value, list) else []
    return tuple(name for name in names if isinstance(name, str) and 0 < len(name) <= _MAX_NAME)


def _any(wanted: Iterable[str], names: Iterable[str]) -> bool:
    return not frozenset(wanted).isdisjoint(names)


def _value(wanted: Iterable[str], capabilities: dict[str, Any]) -> bool | None:
    values = [capabilities[name] for name in wanted if isinstance(capabilities.get(name), bool)]
    return any(values) if values else None
