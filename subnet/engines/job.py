"""From what was asked over the wire to what the engine gets. What it cannot do is refused by name, never dropped."""

from __future__ import annotations

import msgspec

from subnet.errors import InvalidRequest, WireError
from subnet.generation import Job, Start
from subnet.node_info import Capabilities
from subnet.wire.messages import MAX_TEXTS, EmbedRequest, Generate, ScoreRequest
from subnet.wire.tensors import Tensor, TokenIds, token_ids, unpack

# What columns.py has room for.
_MOST_CHOICES = 65_535
_LARGE = 1e6
# What makes no distribution would look like a broken engine, and be held against the node.
_RANGES = {
    "temperature": (0, _LARGE),
    "top_p": (0, 1),
    "top_k": (-1, 2**31),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "frequency_penalty": (-_LARGE, _LARGE),
    "presence_penalty": (-_LARGE, _LARGE),
    "repetition_penalty": (1 / _LARGE, _LARGE),
}


def to_job(request: Generate, can: Capabilities) -> Job:
    """Raises InvalidRequest, and WireError for tensors that are none."""
    _check(request, can)
    prompt = _tokens(request.prompt)
    starts = tuple(Start(start.choice, _tokens(start.delivered)) for start in request.starts)
    if len(prompt) == 0 or not starts or len({start.choice for start in starts}) < len(starts):
        raise InvalidRequest("Invalid request: expected a prompt that is not empty, and choices with distinct indexes.")
    sampling = request.sampling
    if sampling.seed is None:
        sampling = msgspec.structs.replace(sampling, seed=0)
    return Job(prompt, sampling, starts)


def to_texts(request: EmbedRequest, can: Capabilities) -> list[TokenIds]:
    """Raises InvalidRequest, and WireError for tensors that are none."""
    if not can.embeddings:
        raise InvalidRequest("This model does not support embeddings.", param="model")
    if len(request.inputs) > MAX_TEXTS:
        raise InvalidRequest(
            f"Invalid value for 'input': expected at most {MAX_TEXTS} texts, but got {len(request.inputs)}.",
            param="input",
        )
    return [_tokens(tensor) for tensor in request.inputs]


def to_text(request: ScoreRequest, can: Capabilities) -> TokenIds:
    """Raises InvalidRequest, and WireError for a tensor that is none."""
    if not can.prompt_logprobs:
        raise InvalidRequest("This model does not support prompt logprobs.", param="logprobs")
    if not 0 <= request.width <= can.top_logprobs:
        raise InvalidRequest(
            f"Invalid value for 'logprobs': expected an integer between 0 and {can.top_logprobs} for this model, "
            f"but got {request.width}.",
            param="logprobs",
        )
    return _tokens(request.tokens)


def _tokens(tensor: Tensor) -> TokenIds:
    try:
        return token_ids(unpack(tensor))
    except ValueError as error:
        raise WireError(str(error)) from error


def _check(request: Generate, can: Capabilities) -> None:
    wanted = request.sampling
    refusals = {
        "logprobs": wanted.logprobs is not None and not can.top_logprobs,
        "top_logprobs": wanted.logprobs is not None and not 0 <= wanted.logprobs <= can.top_logprobs,
        "top_k": wanted.top_k > 0 and not can.top_k,
        "min_p": wanted.min_p != 0 and not can.min_p,
        "typical_p": wanted.typical_p != 1 and not can.typical_p,
        "frequency_penalty": wanted.frequency_penalty != 0 and not can.penalties,
        "presence_penalty": wanted.presence_penalty != 0 and not can.penalties,
        "repetition_penalty": wanted.repetition_penalty != 1 and not can.penalties,
        "logit_bias": bool(wanted.logit_bias) and not can.logit_bias,
        "min_tokens": wanted.min_tokens != 0 and not can.min_tokens,
        "ignore_eos": wanted.ignore_eos and not can.ignore_eos,
        "grammar": wanted.grammar is not None and wanted.grammar.kind not in can.grammars,
    }
    for param, refused in refusals.items():
        if refused:
            raise InvalidRequest(f"Unsupported value for '{param}': this model does not support it.", param=param)
    for param, (least, most) in _RANGES.items():
        value = getattr(wanted, param)
        if not least <= value <= most:
            raise InvalidRequest(
                f"Invalid value for '{param}': expected a number between {least:g} and {most:g}, but got {value}.",
                param=param,
            )
    if not all(-_LARGE <= bias <= _LARGE for bias in wanted.logit_bias.values()):
        raise InvalidRequest(
            f"Invalid value for 'logit_bias': expected biases between {-_LARGE:g} and {_LARGE:g}.", param="logit_bias"
        )
    if any(not 0 <= start.choice <= _MOST_CHOICES for start in request.starts):
        raise InvalidRequest(f"Invalid choice index: expected an integer between 0 and {_MOST_CHOICES}.")
