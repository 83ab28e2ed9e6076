"""Filters of templates that encode and decode JSON, and spend a budget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jinja2.utils import pass_context

from adapter.prompt.metered.budget import Budget
from adapter.prompt.metered.context import MeteredContext

# Units for each value that Python, and not C, encodes.
_PER_LINE = 10


@pass_context
def tojson(
    context: MeteredContext,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Encode a value as JSON, without escaping HTML as Jinja's own `tojson` does."""
    budget = context.budget
    units = budget.weigh(value)
    size = units << 4
    if separators is not None:
        size += units * (len(separators[0]) + len(separators[1]))
    if sort_keys:
        budget.spend(units * 4)
    if indent is not None:
        # Python, and not C, encodes it.
        size += _depths(budget, value) * (len(indent) if isinstance(indent, str) else max(indent, 0) + 1)
    budget.ensure(size)

    def listed(value: object) -> list[Any]:
        """Return what a filter such as `map` yields."""
        if not isinstance(value, Iterator):
            raise TypeError(f"an object of the type {type(value).__name__} cannot be encoded as JSON")
        items: list[Any] = budget.listed(value)
        budget.ensure(budget.weigh(items) << 4)
        return items

    return budget.made(  # type: ignore[no-any-return]
        json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
            default=listed,
        )
    )


def _depths(budget: Budget, value: Any) -> int:
    """Return the sum of the depths of all values in a value, and spend what it takes to write each on a line."""
    total, depth, level = 0, 1, [value]
    while level:
        contents: list[Any] = []
        for each in level:
            budget.spend(_PER_LINE)
            if isinstance(each, dict):
                contents += each.values()
            elif isinstance(each, list | tuple):
                contents += each
        total += (len(contents) + len(level)) * depth
        level, depth = contents, depth + 1
    return total


@pass_context
def fromjson(context: MeteredContext, text: Any) -> Any:
    # A few characters can be an object of several hundred bytes.
    context.budget.ensure(len(text))
    context.budget.fill(len(text), 32 * len(text))
    return json.loads(text)
