"""bytes -> ChatCompletionRequest, or a BadRequest that names the exact place."""

from __future__ import annotations

import re

import msgspec

from adapter.errors import BadRequest
from adapter.schema import parameters
from adapter.schema.messages import AssistantMessage
from adapter.schema.requests import ChatCompletionRequest

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_REQUEST = msgspec.json.Decoder(ChatCompletionRequest)
_ROLES = "system, developer, user, assistant, tool"

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"^Object missing required field `(.*)`$")
_LONE_SURROGATE = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F])")
_TYPE_NAMES = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}


def read_request(body: bytes) -> tuple[ChatCompletionRequest, tuple[str, ...]]:
    """The request, and the names of those of its parameters that nobody knows. Raises BadRequest."""
    try:
        body.decode()
        given = _FIELDS.decode(body)
        request = _REQUEST.decode(body)
        ignored = parameters.check(given)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from error
    except UnicodeDecodeError as error:
        raise _malformed("it is not UTF-8") from error
    except (msgspec.DecodeError, RecursionError) as error:
        hint = " (a surrogate without its pair)" if _LONE_SURROGATE.search(body) else ""
        raise _malformed(f"{error}{hint}") from error
    _check_combinations(request)
    return request, ignored


def _check_combinations(request: ChatCompletionRequest) -> None:
    if request.stop == "":
        raise BadRequest("Invalid 'stop': a stop string must not be empty.", param="stop", code="invalid_value")
    if request.stream_options is not None and not request.stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise BadRequest(message, param="stream_options", code="invalid_parameter_combination")
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise BadRequest(message, param="max_tokens", code="invalid_parameter_combination")
    for index, said in enumerate(request.messages):
        if isinstance(said, AssistantMessage) and _says_nothing(said):
            place = f"messages[{index}].content"
            raise BadRequest(
                f"Invalid value for '{place}': expected a string or an array, got null.",
                param=place,
                code="invalid_type",
            )


def _says_nothing(message: AssistantMessage) -> bool:
    return message.content is None and not message.tool_calls and message.refusal is None


def _malformed(why: str) -> BadRequest:
    return BadRequest(f"We could not parse the JSON body of your request: {why}.", code="invalid_json")


def _misfit(text: str) -> BadRequest:
    """From msgspec's words, such as "Expected `float` <= 2.0 - at `$.temperature`"."""
    found = _PLACE.search(text)
    place = found[1] if found else ""
    problem = text[: found.start()] if found else text
    if missing := _MISSING.match(problem):
        place = f"{place}.{missing[1]}".lstrip(".")
        return BadRequest(f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter")
    if not place:
        return BadRequest(f"The body of your request must be a JSON object: {_plain(problem)}.", code="invalid_type")
    code = "invalid_type" if ", got " in problem else "invalid_value"
    return BadRequest(f"Invalid value for '{place}': {_plain(problem)}.{_hint(place)}", param=place, code=code)


def _plain(problem: str) -> str:
    names = re.sub(r"`([^`]*)`", lambda found: _type_names(found[1]), problem)
    return names[0].lower() + names[1:]


def _type_names(types: str) -> str:
    return " or ".join(_TYPE_NAMES.get(name, name) for name in types.split(" | ") if name != "null" or types == "null")


def _hint(place: str) -> str:
    if place.endswith(".role"):
        return f" Supported values are: {_ROLES}."
    if ".content[" in place and place.endswith(".type"):
        return " Only parts of type 'text' are supported by the models served here."
    return ""
