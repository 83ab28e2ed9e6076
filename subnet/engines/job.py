"""Conversion of wire requests to the input of engines.

A parameter that the engine does not support is rejected by name, never ignored.
"""

from __future__ import annotations

import msgspec

from subnet.errors import InvalidRequest, WireError
from subnet.generation import Job, Start, needs_of
from subnet.node_info import Capabilities
from subnet.tensors import Tensor, TokenIds, token_ids, unpack
from subnet.wire.messages import (
    MAX_TEXTS,
    MAX_TOKENIZE_SIZE,
    MAX_TOKENIZE_TEXTS,
    EmbedRequest,
    Generate,
    ScoreRequest,
    TokenizeRequest,
)

# Largest choice index that fits into a column of Deltas, see subnet/wire/columns.py.
_MAX_CHOICE_INDEX = 65_535
_MAX_MAGNITUDE = 1e6
# Values outside these ranges would yield no probability distribution. The engine would appear to have failed, and the
# node's circuit breaker would count it.
_RANGES = {
    "temperature": (0, _MAX_MAGNITUDE),
    "top_p": (0, 1),
    "top_k": (-1, 2**31),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "frequency_penalty": (-_MAX_MAGNITUDE, _MAX_MAGNITUDE),
    "presence_penalty": (-_MAX_MAGNITUDE, _MAX_MAGNITUDE),
    "repetition_penalty": (1 / _MAX_MAGNITUDE, _MAX_MAGNITUDE),
    "max_tokens": (1, 2**31),
    "min_tokens": (0, 2**31),
    "seed": (-(2**63), 2**64 - 1),
}
_MAX_TOKEN_ID = 2**31 - 1


def to_job(request: Generate, capabilities: Capabilities) -> Job:
    """Return the job for `request`. A missing seed becomes 0.

    Raises InvalidRequest for invalid or unsupported parameters, and WireError for malformed tensors.
    """
    _validate(request, capabilities)
    prompt = _tokens(request.prompt)
    starts = tuple(Start(start.choice, _tokens(start.delivered), start.position) for start in request.starts)
    if any(not 0 <= start.position <= len(prompt) for start in starts):
        raise InvalidRequest("Invalid request: expected the position of each choice to lie within the prompt.")
    if len(prompt) == 0 or not starts or len({start.choice for start in starts}) < len(starts):
        raise InvalidRequest("Invalid request: expected a prompt that is not empty, and choices with distinct indexes.")
    sampling = request.sampling
    if sampling.seed is None:
        sampling = msgspec.structs.replace(sampling, seed=0)
    return Job(prompt, sampling, starts)


def to_texts(request: EmbedRequest, capabilities: Capabilities) -> list[TokenIds]:
    """Return the token ids of each text of `request`.

    Raises InvalidRequest if embeddings are not supported or there are too many texts, and WireError for malformed
    tensors.
    """
    if not capabilities.embeddings:
        raise InvalidRequest("This model does not support embeddings.", param="model")
    if len(request.inputs) > MAX_TEXTS:
        raise InvalidRequest(
            f"Invalid value for 'input': expected at most {MAX_TEXTS} texts, but got {len(request.inputs)}.",
            param="input",
        )
    return [_tokens(tensor) for tensor in request.inputs]


def to_text(request: ScoreRequest, capabilities: Capabilities) -> TokenIds:
    """Return the token ids of the text of `request`.

    Raises InvalidRequest if prompt logprobs or the requested number of them are not supported, and WireError for a
    malformed tensor.
    """
    if not capabilities.prompt_logprobs:
        raise InvalidRequest("This model does not support prompt logprobs.", param="logprobs")
    if not 0 <= request.width <= capabilities.top_logprobs:
        raise InvalidRequest(
            f"Invalid value for 'logprobs': expected an integer between 0 and {capabilities.top_logprobs} for this "
            f"model, but got {request.width}.",
            param="logprobs",
        )
    return _tokens(request.tokens)


def to_plain_texts(request: TokenizeRequest) -> tuple[str, ...]:
    """Return the texts of `request`. Raises InvalidRequest if there are too many, or they are too long."""
    texts = request.texts
    if len(texts) > MAX_TOKENIZE_TEXTS or sum(len(text.encode()) for text in texts) > MAX_TOKENIZE_SIZE:
        raise InvalidRequest(
            f"The text cannot be tokenized: expected at most {MAX_TOKENIZE_SIZE} bytes in {MAX_TOKENIZE_TEXTS} parts.",
            param="messages",
        )
    return texts


def _tokens(tensor: Tensor) -> TokenIds:
    try:
        return token_ids(unpack(tensor))
    except ValueError as error:
        raise WireError(str(error)) from error


def _validate(request: Generate, capabilities: Capabilities) -> None:
    sampling = request.sampling
    for need in needs_of(sampling):
        if not need.is_met(capabilities):
            raise InvalidRequest(
                f"Unsupported value for '{need.param}': this model does not support it.", param=need.param
            )
    for param, (minimum, maximum) in _RANGES.items():
        value = getattr(sampling, param)
        if value is not None and not minimum <= value <= maximum:
            raise InvalidRequest(
                f"Invalid value for '{param}': expected a number between {minimum:g} and {maximum:g}, but got {value}.",
                param=param,
            )
    if sampling.logprobs is not None and sampling.logprobs < 0:
        raise InvalidRequest(
            f"Invalid value for 'top_logprobs': expected at least 0, but got {sampling.logprobs}.", param="top_logprobs"
        )
    if not all(-_MAX_MAGNITUDE <= bias <= _MAX_MAGNITUDE for bias in sampling.logit_bias.values()):
        raise InvalidRequest(
            f"Invalid value for 'logit_bias': expected biases between {-_MAX_MAGNITUDE:g} and {_MAX_MAGNITUDE:g}.",
            param="logit_bias",
        )
    if not all(0 <= token <= _MAX_TOKEN_ID for token in (*sampling.stop_tokens, *sampling.logit_bias)):
        raise InvalidRequest(f"Invalid token id in the request: expected an integer between 0 and {_MAX_TOKEN_ID}.")
    if any(not 0 <= start.choice <= _MAX_CHOICE_INDEX for start in request.starts):
        raise InvalidRequest(f"Invalid choice index: expected an integer between 0 and {_MAX_CHOICE_INDEX}.")
