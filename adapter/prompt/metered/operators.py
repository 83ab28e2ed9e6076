"""Operators of templates that spend a budget, and formatting, whose result can be of any size."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import Environment
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedFormatter
from markupsafe import EscapeFormatter, Markup

from adapter.prompt.metered.budget import MAX_BITS, Budget

_NUMBERS = (int, float)
_SEQUENCES = (str, bytes, list, tuple)
_DIGITS = re.compile(r"\d+")
# Markup escapes what it is combined with; a character becomes at most five.
_ESCAPED = 6
_MAX_NUMBER = 320
"""Maximum number of characters of a float without a precision."""


def multiplied(budget: Budget, left: Any, right: Any) -> Any:
    """Return `left * right`."""
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > MAX_BITS:
            raise SecurityError(f"an integer exceeds {MAX_BITS} bits")
        return left * right
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, _SEQUENCES) and isinstance(times, int):
            budget.ensure(len(sequence) * times)
    return budget.made(operator.mul(left, right))


def powered(budget: Budget, left: Any, right: Any) -> NoReturn:
    """Raise SecurityError."""
    raise SecurityError("the ** operator is not allowed")


def subtracted(budget: Budget, left: Any, right: Any) -> Any:
    """Return `left - right`: of numbers, or of sets as the keys of dicts are."""
    if not (isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS)):
        budget.weigh(left)
        budget.weigh(right)
    return budget.made(left - right)


def modulo(budget: Budget, left: Any, right: Any) -> Any:
    """Return `left % right`, which formats a text."""
    if isinstance(left, _NUMBERS):
        return left % right
    return formatted(budget, left, right)


def formatted(budget: Budget, layout: Any, values: Any) -> Any:
    """Return `layout % values`, for a text."""
    if not isinstance(layout, str):
        return layout % values
    fields = layout.count("%")
    size = budget.weigh(values) << 4
    if isinstance(values, Mapping):
        size *= fields  # each field may have the same, largest value
    # Any number in the text may be a width: names of fields can be nested, which hides where they end.
    widths = sum(map(_number, _DIGITS.findall(layout))) if fields else 0
    widths += layout.count("*") * _largest(values)
    size += len(layout) + widths + fields * _MAX_NUMBER
    budget.ensure(size * (_ESCAPED if isinstance(layout, Markup) else 1))
    budget.spend(size >> 6)
    return budget.made(layout % values)


def _number(digits: str) -> int:
    return int(digits) if len(digits) < 10 else 10**10


def _largest(values: Any) -> int:
    """Return the largest number in values, one of which is the width of a field."""
    candidates = values if isinstance(values, tuple) else (values,)
    return max((abs(each) for each in candidates if isinstance(each, int)), default=0)


class MeteredFormatter(SandboxedFormatter):
    """Formatter behind the method `format` of texts. It spends `budget` for each field."""

    def __init__(self, environment: Environment, budget: Budget, **options: Any) -> None:
        super().__init__(environment, **options)
        self._budget = budget

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """Convert the value of a field, with `!r` for example."""
        if conversion is not None:
            self._budget.weigh(value)
        return self._budget.made(super().convert_field(value, conversion))

    def format_field(self, value: Any, format_spec: str) -> Any:
        """Format the value of a field."""
        self._budget.spend(10)
        if not isinstance(value, str):
            self._budget.weigh(value)
        width = sum(map(_number, _DIGITS.findall(format_spec)))
        self._budget.ensure(width)
        return self._budget.made(super().format_field(value, format_spec))


class _EscapingFormatter(MeteredFormatter, EscapeFormatter):
    """Formatter behind the method `format` of Markup."""


class Format:
    """Method `format` or `format_map` of a text."""

    def __init__(self, environment: Environment, layout: str, is_map: bool) -> None:
        # Templates can read and call public attributes.
        self._environment = environment
        self._layout = layout
        self._is_map = is_map


def call_format(method: Format, budget: Budget, args: tuple[Any, ...], values: Mapping[str, Any]) -> str:
    """Return the formatted text."""
    layout, environment = method._layout, method._environment
    if method._is_map:
        (values,), args = args, ()
    budget.spend(len(layout))
    formatter = (
        _EscapingFormatter(environment, budget, escape=layout.escape)
        if isinstance(layout, Markup)
        else MeteredFormatter(environment, budget)
    )
    return type(layout)(budget.made(formatter.vformat(layout, args, values)))
