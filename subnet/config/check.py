"""Validation of settings against their types, which reports all problems with their paths."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
# Settings whose values are not repeated in errors, which may be logged.
_SECRET = re.compile(r"secret|api.key|headers|proxy", re.IGNORECASE)
_MAX_VALUE_LENGTH = 60
_SCALARS: Mapping[type[inspect.Type], type] = {
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
    inspect.StrType: str,
}


class Checker:
    """Converts text and plain values for given types, and collects all `problems` instead of stopping at the first.

    Text is accepted for any scalar or list: "8000" for an integer, "yes" or "off" for a boolean, "a,b" for a list.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, info: inspect.Type, value: Any, path: str) -> Any:
        """Return `value` as plain data that msgspec can convert to `info`. The result is undefined if there are
        problems.
        """
        info = plain_type(info)
        if isinstance(info, inspect.StructType):
            return self._struct(info, value, path)
        if isinstance(info, inspect.DictType):
            return self._table(info, value, path)
        if isinstance(info, inspect.VarTupleType | inspect.ListType):
            return self._list(info.item_type, value, path)
        return self._scalar(info, value, path)

    def unknown(self, path: str, name: str, names: Iterable[str], prefix: str = "") -> None:
        """Record the unknown setting `name`, and suggest the most similar of `names`, which all lack their `prefix`."""
        self.problems.append(f"{path}: unknown setting{suggestion(name, names, prefix)}")

    def _struct(self, info: inspect.StructType, value: Any, path: str) -> Any:
        from_text = getattr(info.cls, "from_text", None)
        if isinstance(value, str) and from_text is not None:
            value = from_text(value)
        if isinstance(value, info.cls):
            return value
        if not isinstance(value, Mapping):
            return self._reject(info, value, path)
        fields = {field.encode_name: field for field in info.fields}
        before = len(self.problems)
        found = {}
        for name, item in value.items():
            if name in fields:
                found[name] = self.read(fields[name].type, item, f"{path}.{name}")
            else:
                self.unknown(f"{path}.{name}", name, fields)
        for name, field in fields.items():
            if field.required and name not in value:
                self.problems.append(f"{path}.{name}: required, but missing")
        if len(self.problems) == before:
            self._convert(info.cls, found, path)
        return found

    def _convert(self, struct: type, found: Mapping[str, Any], path: str) -> None:
        """Record an error of the struct's own validation, such as a conflict between fields."""
        try:
            msgspec.convert(found, struct, strict=False)
        except msgspec.ValidationError as error:
            self.problems.append(f"{path}: {str(error).partition(' - at `')[0]}")

    def _table(self, info: inspect.DictType, value: Any, path: str) -> Any:
        if isinstance(value, str | list | tuple) and accepts_pairs(info):
            value = self._pairs(info, value, path)
        if not isinstance(value, Mapping):
            return self._reject(info, value, path)
        if any(not name for name in value):
            self.problems.append(f"{path}: a name must not be empty")
        return {name: self.read(info.value_type, item, f"{path}.{_quoted(name)}") for name, item in value.items()}

    def _pairs(self, info: inspect.DictType, text: str | Iterable[Any], path: str) -> Mapping[str, Any]:
        """Parse "a=b" and "c=d". If values are lists, an item without a name belongs to the name before it: "a=b,c"."""
        has_lists = isinstance(plain_type(info.value_type), inspect.VarTupleType)
        found: dict[str, list[str]] = {}
        items = split(text) if isinstance(text, str) else [part for item in text for part in split(str(item))]
        for item in items:
            name, mark, value = item.partition("=")
            if mark:
                found[name.strip()] = [value.strip()]
            elif found and has_lists:
                found[next(reversed(found))].append(item)
            else:
                self.problems.append(
                    f"{path}: expected NAME=VALUE{',...' if has_lists else ''}, got {format_value(item)}"
                )
        return found if has_lists else {name: values[0] for name, values in found.items()}

    def _list(self, info: inspect.Type, value: Any, path: str) -> Any:
        if isinstance(value, str):
            value = split(value)
        if not isinstance(value, list | tuple):
            return self._add_problem("a list", value, path)
        return [self.read(info, item, f"{path}[{number}]") for number, item in enumerate(value)]

    def _scalar(self, info: inspect.Type, value: Any, path: str) -> Any:
        if isinstance(info, inspect.BoolType) and isinstance(value, str):
            value = _BOOLEANS.get(value.strip().lower(), value)
        try:
            converted: Any = msgspec.convert(value, _SCALARS.get(type(info), str), strict=False)
        except msgspec.ValidationError:
            return self._reject(info, value, path)
        return converted if _within(info, converted) else self._reject(info, value, path)

    def _reject(self, info: inspect.Type, value: Any, path: str) -> None:
        info = plain_type(info)
        choices = map(str, info.values) if isinstance(info, inspect.LiteralType) else ()
        self._add_problem(expected(info), value, path, suggestion(str(value), choices))

    def _add_problem(self, expected_text: str, value: Any, path: str, hint: str = "") -> None:
        got = "" if _SECRET.search(path) else f", got {format_value(value)}{hint}"
        self.problems.append(f"{path}: expected {expected_text}{got}")


def plain_type(info: inspect.Type) -> inspect.Type:
    """Return the type without annotations and without None."""
    while isinstance(info, inspect.Metadata | inspect.UnionType):
        if isinstance(info, inspect.Metadata):
            info = info.type
        else:
            info = next(one for one in info.types if not isinstance(one, inspect.NoneType))
    return info


def accepts_pairs(info: inspect.DictType) -> bool:
    """Return whether the values of the mapping are simple enough to be written as NAME=VALUE."""
    return not isinstance(plain_type(info.value_type), inspect.StructType)


def split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def suggestion(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean 'port'?` if one of `names` is similar to `name`, else "". `prefix` is added to the
    suggestion.
    """
    known = {other.lower().replace("-", "_"): other for other in names}
    close = get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    return f"; did you mean '{prefix}{known[close[0]]}'?" if close else ""


def expected(info: inspect.Type) -> str:
    """Return a description of the values of a type, such as "an integer from 0 to 65535"."""
    info = plain_type(info)
    if isinstance(info, inspect.LiteralType):
        return "one of " + ", ".join(map(str, info.values))
    if isinstance(info, inspect.IntType):
        return "an integer" + _range(info)
    if isinstance(info, inspect.FloatType):
        return "a number" + _range(info)
    if isinstance(info, inspect.BoolType):
        return "true or false"
    if isinstance(info, inspect.StrType):
        return "text that is not empty" if info.min_length else "text"
    return "a table"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    low = f"{info.ge:g}" if info.ge is not None else f"above {info.gt:g}" if info.gt is not None else ""
    high = str(info.le) if info.le is not None else f"below {info.lt:g}" if info.lt is not None else ""
    if low and high:
        return f" from {low} to {high}"
    if info.ge is not None:
        return f" of at least {low}"
    return f" {low or high}" if low or high else ""


def format_value(value: Any) -> str:
    """Return a value as text for an error, truncated to fit into one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= _MAX_VALUE_LENGTH else value[:_MAX_VALUE_LENGTH] + "...")
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else str(value)


def _within(info: Any, value: Any) -> bool:
    if isinstance(info, inspect.LiteralType):
        return value in info.values
    if isinstance(info, inspect.StrType):
        return len(value) >= (info.min_length or 0)
    if isinstance(info, inspect.BoolType):
        return True
    over = (info.ge is None or value >= info.ge) and (info.gt is None or value > info.gt)
    under = (info.le is None or value <= info.le) and (info.lt is None or value < info.lt)
    return over and under and math.isfinite(value)


def _quoted(name: str) -> str:
    """Return a key as it is written in TOML."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
