"""Validation rules for text completions that types and ranges cannot express."""

from __future__ import annotations

from adapter.api.common.contract import contract
from adapter.api.common.inputs import MAX_INPUTS, count_inputs
from adapter.api.common.readers import Reader
from adapter.api.common.validation import (
    check_input,
    check_sampling,
    check_stops_strictly,
    invalid_combination,
)
from adapter.api.completions.types import CompletionEnvelope, CompletionRequest
from adapter.errors import invalid


def check_envelope(request: CompletionEnvelope | CompletionRequest) -> None:
    """Check the prompts and the number of choices, which the gateway numbers itself. Raises BadRequest."""
    check_input("prompt", request.prompt)
    maximum = MAX_INPUTS // count_inputs(request.prompt)
    if (request.n or 1) > maximum:
        raise invalid("n", f"expected at most {maximum} for this number of prompts, but got {request.n}")
    if type(request.best_of) is int and request.best_of > 1 and request.stream:
        raise invalid_combination("Streaming is not supported when 'best_of' is greater than 1.", "best_of")


def check_completion(request: CompletionRequest) -> None:
    """Check parameters that depend on each other. Raises BadRequest."""
    check_envelope(request)
    check_sampling(request, request.limit)
    if request.best_of is None:
        return
    maximum = MAX_INPUTS // count_inputs(request.prompt)
    if request.best_of < (request.n or 1):
        raise invalid("best_of", f"expected at least 'n', which is {request.n or 1}, but got {request.best_of}")
    if request.best_of > maximum:
        raise invalid("best_of", f"expected at most {maximum} for this number of prompts, but got {request.best_of}")


read_envelope = Reader(CompletionEnvelope, check=check_envelope)
read_completion = Reader(CompletionRequest, contract("completions"), check_completion, check_stops_strictly)
