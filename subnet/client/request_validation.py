"""Validation of requests before they are sent to a node."""

from __future__ import annotations

import msgspec
from numpy.typing import ArrayLike

from subnet.client.ledger.token import TokenLedger
from subnet.errors import InvalidRequest
from subnet.generation import Sampling
from subnet.tensors import TokenIds, token_ids
from subnet.wire import frames

# Limits of the wire format, see columns.py.
MAX_CHOICES = 65_535
MAX_LOGPROBS = 255
# Maximum bytes of one choice in an encoded request, and of its other fixed-size fields.
_BYTES_PER_CHOICE = 64
_OVERHEAD_BYTES = 1024

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(tuple[str | None, Sampling, str | None]).decode


def validate_prompt(prompt: ArrayLike) -> TokenIds:
    """Return a private copy of `prompt` as one-dimensional int32 token ids. Raises InvalidRequest."""
    try:
        tokens = token_ids(prompt)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"Invalid value for 'prompt': {error}.", param="prompt") from error
    if len(tokens) == 0:
        raise InvalidRequest("Invalid value for 'prompt': expected at least one token.", param="prompt")
    return tokens


def validate_sampling(sampling: Sampling, choices: int) -> None:
    """Raise InvalidRequest if a value is out of range."""
    _validate_range("choices", choices, 1, MAX_CHOICES)
    _validate_range("max_tokens", sampling.max_tokens, 1, 2**31)
    _validate_range("seed", sampling.seed, -(2**63), 2**64 - 1)
    _validate_range("logprobs", sampling.logprobs, 0, MAX_LOGPROBS)


def validate_encoding(ledger: TokenLedger) -> None:
    """Raise InvalidRequest if a node could not decode the request, or if it does not fit into one frame."""
    try:
        encoded = _encode((ledger.model, ledger.sampling, ledger.text))
        _decode(encoded)
    except (msgspec.MsgspecError, OverflowError, UnicodeError, TypeError) as error:
        raise InvalidRequest(f"The request cannot be sent: {error}") from error
    size = len(encoded) + ledger.prompt.nbytes + len(ledger.choices) * _BYTES_PER_CHOICE + _OVERHEAD_BYTES
    if size > frames.MAX_FRAME:
        raise InvalidRequest(f"The request cannot be sent: it exceeds the maximum of {frames.MAX_FRAME} bytes.")


def _validate_range(name: str, value: int | None, minimum: int, maximum: int) -> None:
    if value is not None and not minimum <= value <= maximum:
        raise InvalidRequest(
            f"Invalid value for '{name}': expected an integer between {minimum} and {maximum}, but got {value}.",
            param=name,
        )
