"""Structured outputs in the forms of different servers.

Three forms exist beside OpenAI's `response_format`: vLLM's `structured_outputs`, an object with one of `json`, `regex`,
`choice`, `grammar` and `json_object`; its older one, with a parameter such as `guided_json` for each; and SGLang's
parameters `regex` and `ebnf`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from subnet.errors import InvalidRequest

Body = dict[str, Any]
_GUIDED = {f"guided_{name}": name for name in ("json", "regex", "choice", "grammar", "json_object")}
_PARAM = "structured_outputs"


def to_structured_outputs(body: Body) -> Body:
    """Return `body` with `guided_*` in vLLM's newer form. Raises InvalidRequest if both forms are there."""
    given = {name: body[guided] for guided, name in _GUIDED.items() if guided in body}
    if not given:
        return body
    if _PARAM in body:
        raise InvalidRequest(f"Invalid request: expected 'guided_*' or '{_PARAM}', but got both.", param=_PARAM)
    return _without(body, *_GUIDED) | {_PARAM: given}


def to_guided(body: Body) -> Body:
    """Return `body` with `structured_outputs` in vLLM's older form. Raises InvalidRequest for what that lacks."""
    outputs = body.get(_PARAM)
    if outputs is None:
        return body
    kind, value = _only_kind(outputs)
    return _without(body, _PARAM) | {f"guided_{kind}": value}


def to_sglang(body: Body) -> Body:
    """Return `body` with both of vLLM's forms in SGLang's. Raises InvalidRequest for what SGLang does not have."""
    body = to_structured_outputs(body)
    outputs = body.get(_PARAM)
    if outputs is None:
        return body
    kind, value = _only_kind(outputs)
    body = _without(body, _PARAM)
    match kind:
        case "regex":
            return body | {"regex": value}
        case "grammar":
            return body | {"ebnf": value}
        case "choice" if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return body | {"regex": f"({'|'.join(map(re.escape, value))})"}
        case "json_object":
            return body | {"response_format": {"type": "json_object"}}
        case "json":
            schema = {"name": "answer", "schema": _schema(value)}
            return body | {"response_format": {"type": "json_schema", "json_schema": schema}}
    raise _invalid(f"an array of strings as '{kind}'")


def to_tgi(body: Body) -> Body:
    """Return `body` with the content of `response_format` under `value`, as Text Generation Inference has it."""
    given = body.get("response_format")
    if not isinstance(given, dict) or "value" in given:
        return body
    if given.get("type") == "json_schema" and isinstance(given.get("json_schema"), dict):
        content = {name: value for name, value in given["json_schema"].items() if name in ("name", "schema")}
        return body | {"response_format": {"type": "json_schema", "value": content}}
    if given.get("type") == "json_object":
        return body | {"response_format": {"type": "json_object", "value": {"type": "object"}}}
    return body


def _only_kind(outputs: Any) -> tuple[str, Any]:
    """Return the kind of the structured outputs, and its value."""
    given = {name: value for name, value in outputs.items() if value is not None} if isinstance(outputs, dict) else {}
    if len(given) != 1 or (kind := next(iter(given))) not in _GUIDED.values():
        raise _invalid("exactly one of 'json', 'regex', 'choice', 'grammar' and 'json_object'")
    return kind, given[kind]


def _schema(value: Any) -> Any:
    try:
        return msgspec.json.decode(value) if isinstance(value, str) else value
    except msgspec.DecodeError as error:
        raise _invalid("a JSON schema as 'json'") from error


def _invalid(expected: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{_PARAM}': expected {expected} for this model.", param=_PARAM)


def _without(body: Body, *names: str) -> Body:
    return {name: value for name, value in body.items() if name not in names}
