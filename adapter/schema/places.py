"""msgspec's words for what does not fit -> a BadRequest that names the place."""

from __future__ import annotations

import re
from typing import get_args

from adapter.errors import BadRequest
from adapter.schema.requests import ReasoningEffort, Verbosity
from adapter.schema.tools import NAME

# No more of a client's own words is repeated to it.
_LONGEST = 200

_MISSING = re.compile(r"^Object missing required field `(.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `([^`]*)")
_TYPE_NAMES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}


def _one_of(*values: str) -> str:
    return f"Supported values are: {', '.join(values)}."


_HINTS = {
    re.compile(place): hint
    for place, hint in (
        (r"^messages\[\d+\]\.role$", _one_of("system", "developer", "user", "assistant", "tool")),
        (r"^messages\[\d+\]\.function_call$", "It was replaced by 'tool_calls'."),
        (r"^messages\[\d+\]\.audio$", "No audio is kept here."),
        (r"^messages\[\d+\]\.content\[\d+\]\.type$", "Supported are text and, of users, image_url, input_audio, file."),
        (r"tool_calls\[\d+\]\.type$|^tools\[\d+\]\.type$", _one_of("function")),
        (r"^tool_choice$", _one_of("none", "auto", "required")),
        (r"^tool_choice\.type$", _one_of("function", "allowed_tools")),
        (r"^response_format\.type$", _one_of("text", "json_object", "json_schema")),
        (r"^reasoning_effort$", _one_of(*get_args(ReasoningEffort))),
        (r"^verbosity$", _one_of(*get_args(Verbosity))),
        (r"^encoding_format$", _one_of("float", "base64")),
    )
}


def misfit(text: str) -> BadRequest:
    """From words such as "Expected `float` <= 2.0 - at `$.temperature`"."""
    problem, place = _split(text)
    if missing := _MISSING.match(problem):
        place = f"{place}.{missing[1]}".lstrip(".")
        return BadRequest(f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter")
    if unknown := _UNKNOWN.match(problem):
        place = f"{place}.{unknown[1][:64]}".lstrip(".")
        return BadRequest(f"Unknown parameter: '{place}'.", param=place, code="unknown_parameter")
    if not place:
        return BadRequest(f"The body of your request must be a JSON object: {_plain(problem)}.", code="invalid_type")
    code = "invalid_type" if ", got " in problem else "invalid_value"
    return BadRequest(f"Invalid value for '{place}': {_plain(problem)}.{_hint(place)}", param=place, code=code)


def _split(text: str) -> tuple[str, str]:
    """The problem and the place; a value of a map, or a key, is at the map. The problem may quote the client, who may
    have written anything, so the place is what comes last.
    """
    problem, mark, place = text.rpartition(" - at `")
    if not mark:
        return text[:_LONGEST], ""
    place = place.removeprefix("key` in `").removeprefix("$").removeprefix(".").removesuffix("`")
    return problem[:_LONGEST], place.removesuffix("[...]")


def _plain(problem: str) -> str:
    problem = problem.replace(f"matching regex {NAME!r}", "of letters, digits, underscores and dashes")
    names = re.sub(r"`([^`]*)`", lambda found: _type_names(found[1]), problem)
    return names[0].lower() + names[1:]


def _type_names(types: str) -> str:
    return " or ".join(_TYPE_NAMES.get(name, name) for name in types.split(" | ") if name != "null" or types == "null")


def _hint(place: str) -> str:
    return next((f" {hint}" for pattern, hint in _HINTS.items() if pattern.search(place)), "")
