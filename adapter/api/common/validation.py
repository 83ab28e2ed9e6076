"""Validation rules that types and ranges cannot express, for parameters of several APIs. All raise BadRequest."""

from __future__ import annotations

from operator import attrgetter

from adapter.api.common.inputs import MAX_INPUTS, Input, count_inputs, first_type_mismatch
from adapter.api.common.sampling import SamplingRequest
from adapter.errors import BadRequest, invalid

STRUCTURED_PARAMS = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
MAX_OPENAI_STOPS = 4
_NO_VALUES = (None,) * len(STRUCTURED_PARAMS)
_structured_values = attrgetter(*STRUCTURED_PARAMS)


def check_sampling(request: SamplingRequest, limit: int | None) -> None:
    """Check parameters that depend on each other. `limit` is the maximum number of new tokens."""
    if request.stream_options is not None and not request.stream:
        raise invalid_combination(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    if request.min_tokens and limit is not None and request.min_tokens > limit:
        why = f"expected at most {limit}, the maximum number of tokens to generate, but got {request.min_tokens}"
        raise invalid("min_tokens", why)
    _check_structured_outputs(request)


def check_stops_strictly(request: SamplingRequest) -> None:
    """Check that there are no more stop strings than OpenAI takes. Editors send more to other servers."""
    if len(request.stops) > MAX_OPENAI_STOPS:
        why = f"expected an array of at most {MAX_OPENAI_STOPS} items, but got {len(request.stops)}"
        raise invalid("stop", why)


def check_input(name: str, given: Input) -> None:
    """Check that the inputs in the parameter `name` have one type, and that there are not too many."""
    if isinstance(given, str):
        return
    mismatch = first_type_mismatch(given)
    if mismatch is not None:
        raise BadRequest(
            f"Invalid type for '{name}[{mismatch}]': expected the same type as '{name}[0]'.",
            param=f"{name}[{mismatch}]",
            code="invalid_type",
        )
    if count_inputs(given) > MAX_INPUTS:
        raise invalid(name, f"expected at most {MAX_INPUTS} inputs, but got {count_inputs(given)}")


def invalid_combination(message: str, param: str) -> BadRequest:
    """Return the error for parameters that cannot be combined."""
    return BadRequest(message, param=param, code="invalid_parameter_combination")


def _check_structured_outputs(request: SamplingRequest) -> None:
    values = _structured_values(request)
    if values == _NO_VALUES:
        return
    given = [name for name, value in zip(STRUCTURED_PARAMS, values, strict=True) if value is not None]
    if len(given) > 1:
        raise invalid_combination(f"Setting '{given[0]}' and '{given[1]}' at the same time is not supported.", given[1])
    structured = request.structured_outputs
    if structured is not None:
        forms = [name for name in structured.__struct_fields__ if getattr(structured, name) not in (None, False)]
        if len(forms) != 1:
            among = ", ".join(structured.__struct_fields__)
            raise invalid("structured_outputs", f"exactly one of {among} must be set, got {len(forms)}")
