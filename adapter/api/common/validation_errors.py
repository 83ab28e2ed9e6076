"""Translates msgspec's validation errors to BadRequest errors that name the parameter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import inspect

from adapter.api.common.formats import NAME, ReasoningEffort, Verbosity
from adapter.api.common.sampling import MAX_INT
from adapter.errors import BadRequest, invalid

# Maximum lengths, in characters, of the parts of a message that may repeat the client's input.
_MAX_PROBLEM_LENGTH, _MAX_VALUE_LENGTH = 200, 64

_MISSING = re.compile(r"^Object missing required field `(.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `([^`]*)")
_TYPE = re.compile(r"^Expected `([a-z |]+)`, got `([a-z]+)`$")
_BOUND = re.compile(r"^Expected `(int|float)` (<=|>=|<|>) (\S+)$")
_LENGTH = re.compile(r"^Expected `(array|str|object)` of length (<=|>=) (\d+)$")
_PATTERN = f"Expected `str` matching regex {NAME!r}"
_UNSUPPORTED = re.compile(r"^Invalid (?:enum )?value (.*)$", re.DOTALL)
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")

_TYPE_NAMES = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
}
_UNITS = {"array": "items", "str": "characters", "object": "entries"}
_BOUNDS = {"<=": "of at most", ">=": "of at least", "<": "less than", ">": "greater than"}


def one_of(*values: str) -> str:
    *others, last = [f"'{value}'" for value in values]
    before = f"{', '.join(others)}{',' if len(others) > 1 else ''} and " if others else ""
    return f"Supported values are: {before}{last}"


_PART_TYPES = (
    "Supported values are: 'text'; in user messages also 'image_url', 'input_audio' and 'file';"
    " in assistant messages also 'refusal'"
)
Hints = Mapping[re.Pattern[str], str]
"""What is said about an invalid value, by a pattern of its place."""

_HINTS: Hints = {
    re.compile(place): hint
    for place, hint in (
        (r"^messages\[\d+\]\.role$", one_of("system", "developer", "user", "assistant", "tool")),
        (r"^messages\[\d+\]\.function_call$", "Use 'tool_calls' instead"),
        (r"^messages\[\d+\]\.audio$", "Audio output is not supported"),
        (r"^messages\[\d+\]\.content\[\d+\]\.type$", _PART_TYPES),
        (r"tool_calls\[\d+\]\.type$|^tools\[\d+\]\.type$", one_of("function")),
        (r"^tool_choice$", one_of("none", "auto", "required")),
        (r"^tool_choice\.type$", one_of("function", "allowed_tools")),
        (r"^response_format\.type$", one_of("text", "json_object", "json_schema")),
        (r"^reasoning_effort$", one_of(*get_args(ReasoningEffort))),
        (r"^verbosity$", one_of(*get_args(Verbosity))),
        (r"^encoding_format$", one_of("float", "base64")),
    )
}


def validation_error(text: str, given: Mapping[str, Any], kind: type[msgspec.Struct]) -> BadRequest:
    """Return the error for a message of msgspec, such as "Expected `float` <= 2.0 - at `$.temperature`".

    `given` is the JSON object that was decoded as a `kind`, which has HINTS of its own if its values are not OpenAI's.
    """
    problem, place = _split(text)
    hints: Hints = getattr(kind, "HINTS", _HINTS)
    if missing := _MISSING.match(problem):
        place = f"{place}.{missing[1]}".lstrip(".")
        return BadRequest(f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter")
    if unknown := _UNKNOWN.match(problem):
        place = f"{place}.{unknown[1][:64]}".lstrip(".")
        return BadRequest(f"Unknown parameter: '{place}'.", param=place, code="unknown_parameter")
    typed = _TYPE.match(problem)
    if not place:
        why = f"but got {_name(typed[2], got=True)} instead" if typed else _plain(problem)
        return BadRequest(f"Invalid request body: expected a JSON object, {why}.", code="invalid_type")
    code = "invalid_type" if ", got " in problem else "invalid_value"
    inside, key = _map_prefix(text), _invalid_key(text, given, kind, place)
    if key is not None:
        place, inside = f"{place}.{key[:_MAX_VALUE_LENGTH]}", "the key to be " if "key to be" in inside else ""
    if typed:
        why = f"expected {inside}{_names(typed[1])}, but got {_name(typed[2], got=True)} instead"
        return BadRequest(f"Invalid type for '{place}': {_with_hint(why, place, hints)}.", param=place, code=code)
    value = None if inside else _value(given, place)
    why = _problem(problem, inside, _range(kind, _root(place), problem), value)
    return invalid(place, _with_hint(why, place, hints), code)


def _split(text: str) -> tuple[str, str]:
    """Split a message into the problem and the place; for a key or value of a map, the place is the map.

    The place is what follows the last mark, as the problem may quote arbitrary text from the client.
    """
    problem, mark, place = text.rpartition(" - at `")
    if not mark:
        return text[:_MAX_PROBLEM_LENGTH], ""
    place = place.removeprefix("key` in `").removeprefix("$").removeprefix(".").removesuffix("`")
    return problem[:_MAX_PROBLEM_LENGTH], place.removesuffix("[...]")


def _map_prefix(text: str) -> str:
    """Return the subject of a problem with a map's keys or values, as msgspec does not say which one; else empty."""
    place = text.rpartition(" - at `")[2]
    if place.startswith("key` in `"):
        return "every key to be "
    return "every value to be " if place.endswith("[...]`") else ""


def _invalid_key(text: str, given: Mapping[str, Any], kind: type[msgspec.Struct], place: str) -> str | None:
    """Return the first key of the map at `place` that has the problem, by itself or by its value; None if the problem
    is not in a map among the parameters.
    """
    if not _map_prefix(text) or not isinstance(entries := given.get(place), dict):
        return None
    expected = get_type_hints(kind, include_extras=True)[place]
    for key, value in entries.items():
        try:
            msgspec.convert({key: value}, expected, str_keys=True)
        except msgspec.ValidationError:
            return str(key)
    return None


def _problem(problem: str, inside: str, limits: str, value: object) -> str:
    """Describe what was expected and, if it is known, the `value` received."""
    if limits:
        return f"expected {inside}{limits}{_got(value)}"
    if length := _LENGTH.match(problem):
        if length[2] == ">=" and length[3] == "1":
            return f"expected {inside}a non-empty {_TYPE_NAMES[length[1]].split()[1]}"
        size = len(value) if isinstance(value, list | str | dict) else None
        bound = f"{_BOUNDS[length[2]]} {length[3]} {_UNITS[length[1]]}"
        return f"expected {inside}{_TYPE_NAMES[length[1]]} {bound}{_got(size)}"
    if problem == _PATTERN:
        return f"expected {inside}a string of letters, digits, underscores and dashes{_got(value)}"
    if unsupported := _UNSUPPORTED.match(problem):
        return f"{_truncate(unsupported[1])} is not supported"
    return "the number is out of range" if problem.endswith(" out of range") else _plain(problem)


def _range(kind: type[msgspec.Struct], root: str, problem: str) -> str:
    """Describe the allowed numbers: by both bounds if the parameter has two, else by the violated one."""
    violated = _BOUND.match(problem)
    if violated is None:
        return ""
    for number in _numbers(kind, root):
        low, high = number.ge, number.le
        if low is not None and high is not None and high < MAX_INT and float(violated[3]) in (low, high):
            return f"{_TYPE_NAMES[violated[1]]} between {low} and {high}"
    return f"{_TYPE_NAMES[violated[1]]} {_BOUNDS[violated[2]]} {violated[3].removesuffix('.0')}"


@lru_cache(maxsize=256)
def _numbers(kind: type[msgspec.Struct], root: str) -> tuple[inspect.IntType | inspect.FloatType, ...]:
    """Return the types of all numbers in the field `root` of the Struct `kind`."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return tuple(number for field in described.fields if field.name == root for number in _number_types(field.type))


def _number_types(kind: inspect.Type) -> Iterator[inspect.IntType | inspect.FloatType]:
    match kind:
        case inspect.IntType() | inspect.FloatType():
            yield kind
        case inspect.UnionType(types=types):
            for one in types:
                yield from _number_types(one)
        case inspect.ListType(item_type=item):
            yield from _number_types(item)
        case inspect.DictType(key_type=key, value_type=value):
            yield from (*_number_types(key), *_number_types(value))


def _got(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return ""
    return f", but got {_truncate(repr(value))}"


def _truncate(shown: str) -> str:
    return shown if len(shown) <= _MAX_VALUE_LENGTH else shown[:_MAX_VALUE_LENGTH] + "..."


def _value(given: Mapping[str, Any], place: str) -> Any:
    """Return the value that the client sent at `place`; None if it cannot be found."""
    try:
        value: Any = given[_root(place)]
        for name, index in _STEP.findall(place)[1:]:
            value = value[name or int(index)]
    except (LookupError, TypeError):
        return None
    return value


def _root(place: str) -> str:
    return re.split(r"[.\[]", place, maxsplit=1)[0]


def _plain(problem: str) -> str:
    names = re.sub(r"`([^`]*)`", lambda found: _names(found[1]), problem)
    return names[0].lower() + names[1:]


def _names(types: str) -> str:
    *others, last = [_name(name) for name in types.split(" | ") if name != "null" or types == "null"]
    return f"{', '.join(others)} or {last}" if others else last


def _name(kind: str, *, got: bool = False) -> str:
    return "a decimal number" if got and kind == "float" else _TYPE_NAMES.get(kind, kind)


def _with_hint(why: str, place: str, hints: Hints) -> str:
    """Return `why`, followed by the hint for `place` as a second sentence if there is one; without the final period."""
    hint = next((hint for pattern, hint in hints.items() if pattern.search(place)), None)
    return why if hint is None else f"{why}. {hint}"
