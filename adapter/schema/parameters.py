"""What becomes of every parameter of OpenAI's that the request Struct does not have.

Nothing is dropped in silence: a parameter that would change the answer and is not served is refused unless it has
a value that asks for nothing; one that means nothing here is taken; one that nobody knows is taken and named in the
`x-ignored-params` header.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from adapter.errors import BadRequest
from adapter.schema.requests import ChatCompletionRequest

SERVED = frozenset(ChatCompletionRequest.__struct_fields__)

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Not served yet: the values, beside null, that ask for nothing."""

MEANINGLESS = frozenset(
    {
        "metadata",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
    }
)
"""They steer OpenAI's own service, not the answer."""


MOST = 256
"""Parameters of one request."""


def check(given: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """The names that nobody knows, of the parameters of one request. Raises BadRequest for one not served, and for
    too many.
    """
    if len(given) > MOST:
        name = list(given)[MOST][:64]
        raise BadRequest(f"Too many parameters: more than {MOST}, with '{name}'.", param=name, code="invalid_value")
    for name in given.keys() & NEUTRAL.keys():
        if not _asks_for_nothing(given[name], NEUTRAL[name]):
            raise BadRequest(_refusal(name), param=name, code="unsupported_parameter")
    return tuple(sorted(given.keys() - SERVED - NEUTRAL.keys() - MEANINGLESS))


def _asks_for_nothing(raw: msgspec.Raw, neutral: tuple[object, ...]) -> bool:
    try:
        value = msgspec.json.decode(raw)
    except msgspec.ValidationError:  # a number that no float holds
        return False
    return value is None or any(_same(value, one) for one in neutral)


def _same(value: object, neutral: object) -> bool:
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _refusal(name: str) -> str:
    return f"Unsupported parameter: '{name}' is not supported here{''.join(_alternatives(name))}."


def _alternatives(name: str) -> Iterator[str]:
    if values := NEUTRAL[name]:
        yield ", except as " + " or ".join(msgspec.json.encode(value).decode() for value in values)
