"""Methods of values that templates may call, and what each spends before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

from jinja2.exceptions import SecurityError

from adapter.prompt.metered.budget import Budget

# A method gets the budget, the bound method of Python, its object and its arguments.
Method = Callable[..., Any]

_ENCODINGS = frozenset({"utf-8", "utf8", "ascii", "latin-1", "utf-16", "utf-32"})
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_ESCAPED = 6


def _free(budget: Budget, method: Method, owner: Any, *args: Any, **kwargs: Any) -> Any:
    return method(*args, **kwargs)


def _linear(budget: Budget, method: Method, owner: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a method that looks at its object and its arguments once."""
    budget.spend(len(owner) >> 6 if isinstance(owner, str | bytes) else budget.weigh(owner))
    if args or kwargs:
        budget.weigh(args)
        budget.weigh(kwargs)
    return budget.made(method(*args, **kwargs))


def _keyed(budget: Budget, method: Method, owner: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a method that looks up its first argument."""
    if args:
        budget.key(args[0])
    return method(*args, **kwargs)


def _copied(budget: Budget, method: Method, owner: Any, *args: Any, **kwargs: Any) -> Any:
    return budget.made(method(*args, **kwargs))


def _stripped(budget: Budget, method: Method, text: Any, chars: Any = None) -> Any:
    budget.spend((len(text) * (1 if chars is None else len(chars))) >> 6)
    return budget.made(method(chars))


def _searched(budget: Budget, method: Method, text: Any, sought: Any, *args: Any) -> Any:
    budget.search(len(text), len(sought) if isinstance(sought, str | bytes) else 0)
    return budget.made(method(sought, *args))


def _searched_back(budget: Budget, method: Method, text: Any, sought: Any, *args: Any) -> Any:
    # From the end, Python compares at each position.
    budget.spend((len(text) * (1 + len(sought) if isinstance(sought, str | bytes) else 1)) >> 8)
    return budget.made(method(sought, *args))


def _split(
    budget: Budget, method: Method, text: Any, sep: Any = None, maxsplit: int = -1, *, backwards: bool = False
) -> Any:
    if sep is None:
        pieces = (len(text) >> 2) + 1
    else:
        budget.search(len(text), len(sep))
        if backwards:
            budget.spend(len(text) * len(sep) >> 8)
        pieces = text.count(sep) + 1
    return _pieces(budget, method, text, pieces if maxsplit < 0 else min(pieces, maxsplit + 1), sep, maxsplit)


def _rsplit(budget: Budget, method: Method, text: Any, sep: Any = None, maxsplit: int = -1) -> Any:
    return _split(budget, method, text, sep, maxsplit, backwards=True)


def _splitlines(budget: Budget, method: Method, text: Any, keepends: bool = False) -> Any:
    lines = 1 + (sum(map(text.count, _LINE_ENDS)) if isinstance(text, str) else len(text))
    return _pieces(budget, method, text, lines, keepends)


def _pieces(budget: Budget, method: Method, text: Any, number: int, *args: Any) -> Any:
    """Call a method that returns up to `number` pieces of a text."""
    budget.spend(number + (len(text) >> 6))
    if number > 16:
        budget.fill(number, 64 * number)
    return method(*args)


def _joined(budget: Budget, method: Method, separator: Any, values: Any) -> Any:
    pieces = [*budget.listed(values)]
    escaped = 1 if type(separator) is str else _ESCAPED
    length = sum(map(len, pieces)) + len(separator) * len(pieces)
    budget.ensure(length * escaped)
    return budget.made(method(pieces))


def _replaced(budget: Budget, method: Method, text: Any, old: Any, new: Any, count: int = -1) -> Any:
    budget.search(len(text), len(old))
    growth = len(new) * (1 if type(text) is str else _ESCAPED) - len(old)
    if growth > 0:
        times = text.count(old)
        budget.ensure(len(text) + growth * (times if count < 0 else min(times, count)))
    return budget.made(method(old, new, count))


def _padded(budget: Budget, method: Method, text: Any, width: int, *fill: Any) -> Any:
    budget.ensure(max(width, len(text)))
    return budget.made(method(width, *fill))


def _expanded(budget: Budget, method: Method, text: Any, tabsize: int = 8) -> Any:
    tab = "\t" if isinstance(text, str) else b"\t"
    budget.ensure(len(text) + text.count(tab) * max(tabsize, 0))
    return budget.made(method(tabsize))


def _translated(budget: Budget, method: Method, text: Any, table: Any) -> Any:
    budget.weigh(table)
    values = table.values() if isinstance(table, Mapping) else table
    largest = max((len(value) for value in values if isinstance(value, str)), default=1)
    budget.ensure(len(text) * max(largest, 1))
    budget.spend(len(text) >> 2)
    return budget.made(method(table))


def _encoded(budget: Budget, method: Method, text: Any, encoding: str = "utf-8", errors: str = "strict") -> Any:
    if encoding.lower() not in _ENCODINGS:
        raise SecurityError("templates can encode texts as UTF-8, UTF-16, UTF-32, ASCII and Latin-1 only")
    # Replacements of characters that cannot be encoded may be long.
    budget.ensure(len(text) * (4 if errors == "strict" else 100))
    budget.spend(len(text) >> (6 if errors == "strict" else 0))
    return budget.made(method(encoding, errors))


def _quadratic(budget: Budget, method: Method, text: Any) -> Any:
    budget.spend(len(text) + (len(text) ** 2 >> 10))
    return budget.made(method())


def _table(method: Method, names: str) -> dict[str, Method]:
    return dict.fromkeys(names.split(), method)


TEXT_METHODS: Mapping[str, Method] = {
    **_table(
        _linear,
        "capitalize casefold isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable"
        " isspace istitle isupper lower swapcase title upper startswith endswith removeprefix removesuffix escape"
        " unescape hex",
    ),
    **_table(_stripped, "strip lstrip rstrip"),
    **_table(_searched, "count find index partition"),
    **_table(_searched_back, "rfind rindex rpartition"),
    **_table(_padded, "center ljust rjust zfill"),
    **_table(_encoded, "encode decode"),
    **_table(_quadratic, "striptags"),
    "split": _split,
    "rsplit": _rsplit,
    "splitlines": _splitlines,
    "join": _joined,
    "replace": _replaced,
    "expandtabs": _expanded,
    "translate": _translated,
}
_DICT = {
    **_table(_keyed, "get"),
    **_table(_free, "keys values items"),
    **_table(_copied, "copy"),
}
_LIST = {
    # What is appended was counted when it was made; the list grows by a machine word.
    **_table(_free, "append pop"),
    **_table(_copied, "copy"),
    **_table(_linear, "count index"),
}
_SET = _table(
    _linear, "copy difference intersection isdisjoint issubset issuperset symmetric_difference union count index"
)
_NUMBER = _table(_free, "as_integer_ratio bit_count bit_length conjugate hex is_integer")
_METHODS: tuple[tuple[Any, Mapping[str, Method]], ...] = (
    ((str, bytes), TEXT_METHODS),
    (dict, _DICT),
    ((list, tuple), _LIST),
    ((int, float), _NUMBER),
    ((Set, range), _SET),
)


def call_method(budget: Budget, method: Method, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call a method of a value of Python. Raises SecurityError for one that templates cannot use."""
    owner, name = method.__self__, method.__name__  # type: ignore[attr-defined]
    if type(owner) is str and (function := TEXT_METHODS.get(name)) is not None:
        return function(budget, method, owner, *args, **kwargs)
    for kind, methods in _METHODS:
        if isinstance(owner, kind):
            if (function := methods.get(name)) is not None:
                return function(budget, method, owner, *args, **kwargs)
            break
    raise SecurityError(f"templates cannot call the method {name!r}")
