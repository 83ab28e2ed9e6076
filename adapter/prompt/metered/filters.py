"""Filters and tests of templates that spend a budget: those of Jinja, and those that Hugging Face adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Reversible
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.tests import TESTS
from jinja2.utils import _PassArg, pass_context

from adapter.prompt.metered.budget import Budget
from adapter.prompt.metered.code_generator import COUNTED
from adapter.prompt.metered.context import MeteredContext as Context
from adapter.prompt.metered.json_filters import fromjson, tojson
from adapter.prompt.metered.methods import call_method
from adapter.prompt.metered.operators import formatted, modulo

Filter = Callable[..., Any]

# They take a constant time, or take items one by one, which have been counted.
_CONSTANT_FILTERS = "attr count d default first items last length random"
_CONSTANT_TESTS = (
    "boolean callable defined escaped false float integer iterable mapping none number sameas sequence string true"
    " undefined"
)
# Units for each item that a filter of Python looks at, and for each unit of a text that it handles in Python.
_PER_ITEM = 10
_SLOW = 16
_MAX_PRECISION = 400
# Texts up to this length cost no more than the weight of the filter.
_SHORT = 256


def metered_filters() -> dict[str, Filter]:
    """Return all filters of Jinja and Hugging Face by name."""
    return {
        **_wrapped(_linear, FILTERS, "capitalize e escape float lower safe string truncate upper filesizeformat abs"),
        **_wrapped(_slow, FILTERS, "forceescape title urlencode wordcount xmlattr"),
        **_wrapped(_quadratic, FILTERS, "pprint striptags urlize wordwrap"),
        **_wrapped(_lazy, FILTERS, "map reject rejectattr select selectattr"),
        **_wrapped(_sorting, FILTERS, "dictsort groupby max min sort unique"),
        **{name: FILTERS[name] for name in _CONSTANT_FILTERS.split()},
        **_OWN,
    }


def metered_tests() -> dict[str, Filter]:
    """Return all tests of Jinja by name."""
    compared = "!= < <= == > >= eq equalto filter ge greaterthan gt le lessthan lower lt ne test upper"
    tests: Mapping[str, Any] = TESTS
    constant = {name: tests[name] for name in _CONSTANT_TESTS.split()}
    return {**constant, **_wrapped(_comparing, tests, compared), **_OWN_TESTS}


def _wrapped(wrapper: Callable[[Filter], Filter], functions: Mapping[str, Any], names: str) -> dict[str, Filter]:
    return {name: pass_context(wrapper(_from_context(functions[name]))) for name in names.split()}


def _from_context(function: Filter) -> Filter:
    """Return the filter as a function that gets the context first."""
    match _PassArg.from_obj(function):
        case _PassArg.context:
            return function
        case _PassArg.eval_context:
            return lambda context, *args, **kwargs: function(context.eval_ctx, *args, **kwargs)
        case _PassArg.environment:
            return lambda context, *args, **kwargs: function(context.environment, *args, **kwargs)
    return lambda context, *args, **kwargs: function(*args, **kwargs)


def _linear(function: Filter) -> Filter:
    """Return a filter that handles what it gets once."""

    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        budget.ensure(_weigh(budget, value, args, kwargs) << 4)
        return budget.made(function(context, value, *args, **kwargs))

    return metered


def _slow(function: Filter) -> Filter:
    """Return a filter that handles each character in Python, and may return a text of several times the size."""

    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        units = _weigh(budget, value, args, kwargs) * _SLOW
        budget.spend(units)
        budget.ensure(units << 4)
        return budget.made(function(context, value, *args, **kwargs))

    return metered


def _quadratic(function: Filter) -> Filter:
    """Return a filter that takes, at worst, quadratic time, or repeats its arguments."""

    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        units = _weigh(budget, value, args, kwargs)
        budget.spend(units * _SLOW * 4 + (units * units >> 4))
        return budget.made(function(context, value, *args, **kwargs))

    return metered


def _lazy(function: Filter) -> Filter:
    """Return a filter that takes items when they are needed."""

    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        cost = _PER_ITEM + _weigh(budget, args, kwargs) + _parts(args, kwargs)
        if value:
            value = budget.items(value, cost)
        return function(context, value, *args, **kwargs)

    return metered


def _sorting(function: Filter) -> Filter:
    """Return a filter that compares the items that it gets."""

    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        values = budget.listed(value, _PER_ITEM + _weigh(budget, args, kwargs) + _parts(args, kwargs))
        budget.spend(budget.weigh(values) * len(values).bit_length())
        return budget.made(function(context, values, *args, **kwargs))

    return metered


def _comparing(function: Filter) -> Filter:
    """Return a test that compares values."""

    def metered(context: Context, value: Any, *args: Any) -> Any:
        context.budget.weighed(value)
        return function(context, value, *args)

    return metered


def _weigh(budget: Budget, *values: Any) -> int:
    return sum(budget.weigh(value) for value in values if value)


def _parts(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return the number of parts of names of attributes, such as `a.b,c`."""
    return sum(3 * (each.count(".") + each.count(",")) for each in (*args, *kwargs.values()) if isinstance(each, str))


@pass_context
def _trim(context: Context, value: Any, chars: str | None = None) -> Any:
    if type(value) is str and len(value) <= _SHORT and chars is None:
        return value.strip()
    text = value if isinstance(value, str) else context.budget.text(value)
    return call_method(context.budget, text.strip, (chars,), {})


@pass_context
def _counted(context: Context, values: Any, cost: int) -> Any:
    # The filter `map` can call this one, too.
    return context.budget.items(values, cost if type(cost) is int and cost > 0 else 1)


@pass_context
def _list(context: Context, values: Any) -> list[Any]:
    if isinstance(values, str):
        context.budget.fill(len(values), 64 * len(values))
    return context.budget.made([*context.budget.listed(values)])  # type: ignore[no-any-return]


@pass_context
def _reverse(context: Context, values: Any) -> Any:
    if isinstance(values, str):
        return context.budget.made(values[::-1])
    if isinstance(values, Reversible):
        return reversed(values)
    return context.budget.made([*context.budget.listed(values)][::-1])


@pass_context
def _slice(context: Context, values: Any, slices: int, fill_with: Any = None) -> Any:
    context.budget.spend(10 * slices)
    return _JINJA_SLICE(context, context.budget.made([*context.budget.listed(values)]), slices, fill_with)


@pass_context
def _batch(context: Context, values: Any, linecount: int, fill_with: Any = None) -> Any:
    if fill_with is not None:
        context.budget.ensure(linecount)
        context.budget.fill(linecount, 8 * linecount)
    return FILTERS["batch"](context.budget.items(values, 4), linecount, fill_with)


@pass_context
def _join(context: Context, values: Any, d: Any = "", attribute: Any = None) -> str:
    budget = context.budget
    if attribute is not None:
        values = _OWN_MAP(context, values, attribute=attribute)
    return budget.concat([*map(budget.text, budget.listed(values))], budget.text(d))


@pass_context
def _sum(context: Context, values: Any, attribute: Any = None, start: Any = 0) -> Any:
    budget = context.budget
    if attribute is not None:
        values = _OWN_MAP(context, values, attribute=attribute)
    if isinstance(start, str | bytes):
        raise TypeError("the filter 'sum' does not take texts: use 'join'")
    items = budget.listed(values, 2)
    if all(isinstance(item, int | float) for item in items):
        return budget.made(sum(items, start))
    for item in items:
        start = budget.made(start + item)
    return start


@pass_context
def _replace(context: Context, value: Any, old: Any, new: Any, count: int | None = None) -> Any:
    text = context.budget.text
    args = (text(old), text(new), -1 if count is None else count)
    return call_method(context.budget, text(value).replace, args, {})


@pass_context
def _center(context: Context, value: Any, width: int = 80) -> Any:
    text = value if isinstance(value, str) else context.budget.text(value)
    return call_method(context.budget, text.center, (width,), {})


@pass_context
def _indent(context: Context, s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> Any:
    size = len(width) if isinstance(width, str) else width
    lines = 1 + sum(map(s.count, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
    context.budget.ensure(len(s) + lines * (size + 1))
    context.budget.spend(4 * lines)
    return context.budget.made(FILTERS["indent"](s, width, first, blank))


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    if args and kwargs:
        raise TypeError("the filter 'format' takes either positional or named arguments")
    text = value if isinstance(value, str) else context.budget.text(value)
    return formatted(context.budget, text, kwargs or args)


@pass_context
def _round(context: Context, value: Any, precision: int = 0, method: str = "common") -> Any:
    if abs(precision) > _MAX_PRECISION:
        raise SecurityError(f"the precision of a number exceeds {_MAX_PRECISION}")
    return FILTERS["round"](value, precision, method)


@pass_context
def _int(context: Context, value: Any, default: Any = 0, base: int = 10) -> Any:
    context.budget.weigh(value)
    return context.budget.made(FILTERS["int"](value, default, base))


@pass_context
def _in(context: Context, value: Any, values: Any) -> bool:
    return context.budget.contains(value, values)


@pass_context
def _odd(context: Context, value: Any) -> bool:
    return bool(modulo(context.budget, value, 2) == 1)


@pass_context
def _even(context: Context, value: Any) -> bool:
    return bool(modulo(context.budget, value, 2) == 0)


@pass_context
def _divisible(context: Context, value: Any, num: Any) -> bool:
    return bool(modulo(context.budget, value, num) == 0)


_JINJA_SLICE = _from_context(FILTERS["slice"])
_OWN_MAP = pass_context(_lazy(_from_context(FILTERS["map"])))
_OWN: dict[str, Filter] = {
    COUNTED: _counted,
    "batch": _batch,
    "center": _center,
    "format": _format,
    "from_json": fromjson,
    "fromjson": fromjson,
    "indent": _indent,
    "int": _int,
    "join": _join,
    "list": _list,
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "slice": _slice,
    "sum": _sum,
    "tojson": tojson,
    "trim": _trim,
}
_OWN_TESTS: dict[str, Filter] = {"divisibleby": _divisible, "even": _even, "in": _in, "odd": _odd}
