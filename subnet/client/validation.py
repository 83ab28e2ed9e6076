"""What no node could do is refused before one is asked."""

from __future__ import annotations

import msgspec
from numpy.typing import ArrayLike

from subnet.client.ledger.token import TokenLedger
from subnet.errors import InvalidRequest
from subnet.generation import Sampling
from subnet.wire import frames
from subnet.wire.tensors import TokenIds, token_ids

# What columns.py has room for.
MAX_CHOICES = 65_535
MAX_LOGPROBS = 255
# Bytes of a choice in a request, and of all the rest, at most.
_CHOICE = 64
_REST = 1024

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(tuple[str | None, Sampling, str | None]).decode


def checked_prompt(prompt: ArrayLike) -> TokenIds:
    """A private copy of `prompt` as token ids. Raises InvalidRequest."""
    try:
        tokens = token_ids(prompt)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"Invalid value for 'prompt': {error}.", param="prompt") from error
    if len(tokens) == 0:
        raise InvalidRequest("Invalid value for 'prompt': expected at least one token.", param="prompt")
    return tokens


def check_sampling(sampling: Sampling, choices: int) -> None:
    """Raises InvalidRequest."""
    _check("choices", choices, 1, MAX_CHOICES)
    _check("max_tokens", sampling.max_tokens, 1, 2**31)
    _check("seed", sampling.seed, -(2**63), 2**64 - 1)
    _check("logprobs", sampling.logprobs, 0, MAX_LOGPROBS)


def check_travels(ledger: TokenLedger) -> None:
    """Whether a node can read the request, whatever its parts are, and it fits a frame. Raises InvalidRequest."""
    try:
        sent = _encode((ledger.model, ledger.sampling, ledger.text))
        _decode(sent)
    except (msgspec.MsgspecError, OverflowError, UnicodeError, TypeError) as error:
        raise InvalidRequest(f"The request cannot be sent: {error}") from error
    if len(sent) + ledger.prompt.nbytes + len(ledger.choices) * _CHOICE + _REST > frames.MAX_FRAME:
        raise InvalidRequest(f"The request cannot be sent: it exceeds the maximum of {frames.MAX_FRAME} bytes.")


def _check(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise InvalidRequest(
            f"Invalid value for '{name}': expected an integer between {least} and {most}, but got {value}.", param=name
        )
