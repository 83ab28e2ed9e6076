"""Rules that types and ranges cannot express, for what chat and text completions share. All raise BadRequest."""

from __future__ import annotations

from operator import attrgetter

from adapter.api.common.inputs import MAX_INPUTS, Input, count_inputs, odd_one
from adapter.api.common.sampling import SamplingRequest
from adapter.errors import BadRequest, invalid

_STRUCTURES = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
_NO_STRUCTURES = (None,) * len(_STRUCTURES)
_structures = attrgetter(*_STRUCTURES)


def check_sampling(request: SamplingRequest, limit: int | None) -> None:
    if request.stream_options is not None and not request.stream:
        raise invalid_combination(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    if request.min_tokens and limit is not None and request.min_tokens > limit:
        why = f"expected at most {limit}, the maximum number of tokens to generate, but got {request.min_tokens}"
        raise invalid("min_tokens", why)
    _check_structure(request)


def check_input(name: str, given: Input) -> None:
    if isinstance(given, str):
        return
    odd = odd_one(given)
    if odd is not None:
        raise BadRequest(
            f"Invalid type for '{name}[{odd}]': expected the same type as '{name}[0]'.",
            param=f"{name}[{odd}]",
            code="invalid_type",
        )
    if count_inputs(given) > MAX_INPUTS:
        raise invalid(name, f"expected at most {MAX_INPUTS} inputs, but got {count_inputs(given)}")


def invalid_combination(message: str, param: str) -> BadRequest:
    """Returns the error for parameters that cannot be combined."""
    return BadRequest(message, param=param, code="invalid_parameter_combination")


def _check_structure(request: SamplingRequest) -> None:
    values = _structures(request)
    if values == _NO_STRUCTURES:
        return
    given = [name for name, value in zip(_STRUCTURES, values, strict=True) if value is not None]
    if len(given) > 1:
        raise invalid_combination(f"Setting '{given[0]}' and '{given[1]}' at the same time is not supported.", given[1])
    wanted = request.structured_outputs
    if wanted is not None:
        forms = [name for name in wanted.__struct_fields__ if getattr(wanted, name) not in (None, False)]
        if len(forms) != 1:
            among = ", ".join(wanted.__struct_fields__)
            raise invalid("structured_outputs", f"exactly one of {among} must be set, got {len(forms)}")
