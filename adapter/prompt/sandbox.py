"""Where chat templates run: Jinja's sandbox, with what Hugging Face's templates expect to find."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST = 16_000_000
"""Characters that a template may render, or items that it may make by one multiplication."""


_METHODS = frozenset(dir(dict))
_LOOP = frozenset({"first", "last", "index", "index0", "length", "previtem", "nextitem"})


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What the sandbox gives, sooner for what templates ask for all the time."""
        if type(obj) is dict and attribute in obj and attribute not in _METHODS:
            return obj[attribute]
        if type(obj) is LoopContext and attribute in _LOOP:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("the ** operator is not allowed")
        if _length(left, right) > LONGEST:
            raise SecurityError(f"the result of a multiplication exceeds {LONGEST} items")
        return super().call_binop(context, operator, left, right)


def _length(left: object, right: object) -> int:
    """Of a product of a sequence and a number, else 0."""
    if isinstance(left, int):
        left, right = right, left
    return len(left) * right if isinstance(left, str | bytes | list | tuple) and isinstance(right, int) else 0


class _Generation(Extension):
    """`{% generation %}` marks what the assistant said, for training; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 (as its base has it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _make() -> _Environment:
    made = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return made


environment = _make()
