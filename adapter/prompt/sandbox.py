"""Sandboxed Jinja environment for chat templates, with the filters and functions that Hugging Face provides to them.

What a template computes is counted (see metered/).
"""

from __future__ import annotations

from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from adapter.prompt.metered.code_generator import MeteredCodeGenerator
from adapter.prompt.metered.context import GLOBALS, MeteredContext
from adapter.prompt.metered.filters import metered_filters, metered_tests
from adapter.prompt.metered.methods import TEXT_METHODS
from adapter.prompt.metered.operators import Format

_DICT_METHODS = frozenset(dir(dict))
_SAFE_DICT_METHODS = frozenset({"get", "items", "keys", "values"})
# Templates written for llama.cpp change lists.
_LIST_METHODS = frozenset({"append", "pop"})
_LOOP_ATTRIBUTES = frozenset({"first", "last", "index", "index0", "length", "previtem", "nextitem"})


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = MeteredCodeGenerator
    context_class = MeteredContext

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return what the sandbox would return, by a faster path for attributes that templates read all the time."""
        kind = type(obj)
        if kind is dict:
            if attribute in _SAFE_DICT_METHODS:
                return getattr(obj, attribute)
            if attribute in obj and attribute not in _DICT_METHODS:
                return obj[attribute]
        elif kind is str:
            if attribute in TEXT_METHODS:
                return getattr(obj, attribute)
        elif kind is Namespace:
            attributes = object.__getattribute__(obj, "_Namespace__attrs")
            if attribute in attributes and attribute[0] != "_":
                return attributes[attribute]
        elif kind is LoopContext and attribute in _LOOP_ATTRIBUTES:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Any:
        """Return the method `format` of a text such that it spends the budget; None for other values."""
        if not isinstance(value, MethodType | BuiltinMethodType) or value.__name__ not in ("format", "format_map"):
            return None
        layout = value.__self__
        return Format(self, layout, value.__name__ == "format_map") if isinstance(layout, str) else None


class _ListEnvironment(_Environment):
    """Environment for templates that change lists. They must be given copies: what is changed remains so."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may use an attribute."""
        return (type(obj) is list and attr in _LIST_METHODS) or super().is_safe_attribute(obj, attr, value)


def copied(value: Any) -> Any:
    """Return a copy of a value with all its lists and dicts."""
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return value


class _GenerationTag(Extension):
    """Support for `{% generation %}`, which marks the assistant's text for training. Here it renders its content."""

    tags = {"generation"}  # noqa: RUF012 (declared like this in the base class)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _create_environment(kind: type[_Environment]) -> _Environment:
    result = kind(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"])
    result.filters.clear()
    result.filters.update(metered_filters())
    result.tests.clear()
    result.tests.update(metered_tests())
    result.globals.update(GLOBALS)
    return result


_environment = _create_environment(_Environment)
_list_environment = _create_environment(_ListEnvironment)


def environment_of(source: str) -> tuple[ImmutableSandboxedEnvironment, bool]:
    """Return the environment for a template, and whether the template may change lists that it is given."""
    changes = any(f".{method}(" in source for method in _LIST_METHODS)
    return (_list_environment if changes else _environment), changes
