"""Sampling parameters in the form of `transformers serve`, which has its own and checks none.

Source: transformers/cli/serving/utils.py, BaseHandler._build_generation_config, of transformers 5.19.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from subnet.errors import InvalidRequest

Body = dict[str, Any]
_Limit = Annotated[int, Meta(ge=1)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Text = Annotated[str, Meta(min_length=1)]

_PLACE = re.compile(r" - at (?:`key` in )?`\$\.(\w+).*`$")
# Names in the configuration of those parameters that the server takes there only.
_MOVED = {
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty",
    "min_tokens": "min_new_tokens",
}
_SAMPLED = frozenset({"temperature", "top_p", "top_k", "min_p", "typical_p"})
# The server's own limit for a request without one, which it does not set for a request with a configuration.
_MAX_TOKENS = 1024


class _Parameters(msgspec.Struct):
    """What the server converts without a check: a wrong type or value is a 500 there, like its own failures."""

    max_tokens: _Limit | None = None
    max_completion_tokens: _Limit | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: _Share | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: _Text | list[_Text] | None = None
    logit_bias: dict[int, float] | None = None
    generation_config: str | None = None


def to_generation_config(body: Body) -> Body:
    """Return `body` with what the server has no parameter for in its `generation_config`, unless that is given.

    A model whose own configuration does not sample is greedy at any temperature, so sampling is switched on for a
    request that asks for it. Raises InvalidRequest for values that the server fails at.
    """
    given = _check(body)
    if given.logit_bias is not None:
        body = body | {"logit_bias": {str(token): bias for token, bias in given.logit_bias.items()}}
    config = {new: body[name] for name, new in _MOVED.items() if name in body}
    if not _SAMPLED.isdisjoint(body) and given.temperature != 0:
        config["do_sample"] = True
    if not config or given.generation_config is not None:
        return body
    if given.top_k == -1:
        config["top_k"] = 0
    if given.max_tokens is None and given.max_completion_tokens is None:
        config["max_new_tokens"] = _MAX_TOKENS
    rest = {name: value for name, value in body.items() if name not in _MOVED}
    return rest | {"generation_config": msgspec.json.encode(config).decode()}


def _check(body: Body) -> _Parameters:
    try:
        given = msgspec.convert(body, _Parameters, str_keys=True)
    except msgspec.ValidationError as error:
        problem, place = str(error), _PLACE.search(str(error))
        param = "" if place is None else place[1]
        raise InvalidRequest(f"Invalid value for '{param}': {_PLACE.sub('', problem)}.", param=param) from error
    try:
        msgspec.json.decode("{}" if given.generation_config is None else given.generation_config, type=dict[str, Any])
    except msgspec.DecodeError as error:
        message = "Invalid value for 'generation_config': expected a JSON object in a string."
        raise InvalidRequest(message, param="generation_config") from error
    return given
