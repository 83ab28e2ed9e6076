"""Sandboxed Jinja environment for chat templates, with the filters and functions that Hugging Face provides to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RENDERED = 16_000_000
"""Maximum number of characters of a rendered prompt, and of items of the result of one multiplication."""


_DICT_METHODS = frozenset(dir(dict))
# Templates written for llama.cpp change lists.
_LIST_METHODS = frozenset({"append", "pop"})
_LOOP_ATTRIBUTES = frozenset({"first", "last", "index", "index0", "length", "previtem", "nextitem"})


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return what the sandbox would return, by a faster path for attributes that templates read all the time."""
        if type(obj) is dict and attribute in obj and attribute not in _DICT_METHODS:
            return obj[attribute]
        if type(obj) is LoopContext and attribute in _LOOP_ATTRIBUTES:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("the ** operator is not allowed")
        if _product_length(left, right) > MAX_RENDERED:
            raise SecurityError(f"the result of a multiplication exceeds {MAX_RENDERED} items")
        return super().call_binop(context, operator, left, right)


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


def _product_length(left: object, right: object) -> int:
    """Return the length of the product of a sequence and an integer, or 0 for other operands."""
    if isinstance(left, int):
        left, right = right, left
    return len(left) * right if isinstance(left, str | bytes | list | tuple) and isinstance(right, int) else 0


class _GenerationTag(Extension):
    """Support for `{% generation %}`, which marks the assistant's text for training. Here it renders its content."""

    tags = {"generation"}  # noqa: RUF012 (declared like this in the base class)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Encode a value as JSON, without escaping HTML as Jinja's own `tojson` does."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_listed,
    )


def _listed(value: object) -> list[Any]:
    """Return what a filter such as `map` yields. Raises TypeError for anything else."""
    if isinstance(value, Iterator):
        return [*value]
    raise TypeError(f"an object of the type {type(value).__name__} cannot be encoded as JSON")


class _Dict:
    """The function `dict` of templates, with its method `fromkeys`."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


def _create_environment(kind: type[_Environment]) -> _Environment:
    result = kind(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"])
    result.filters["tojson"] = _tojson
    # Templates written for other servers parse arguments with these.
    result.filters["fromjson"] = result.filters["from_json"] = json.loads
    result.globals["raise_exception"] = _raise_exception
    result.globals["dict"] = _Dict()
    result.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return result


_environment = _create_environment(_Environment)
_list_environment = _create_environment(_ListEnvironment)


def environment_of(source: str) -> tuple[ImmutableSandboxedEnvironment, bool]:
    """Return the environment for a template, and whether the template may change lists that it is given."""
    changes = any(f".{method}(" in source for method in _LIST_METHODS)
    return (_list_environment if changes else _environment), changes
