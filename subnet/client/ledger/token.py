"""Ledger of the token lane, where requests and answers are token ids."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import sha256
from random import getrandbits

import msgspec
import numpy as np

from subnet.client.ledger.base import Ledger
from subnet.errors import WireError
from subnet.generation import Delta, RequestSize, Sampling, needs_of
from subnet.pool.policies.base import RoutingHint
from subnet.tensors import TokenIds, pack
from subnet.wire.messages import ChoiceStart, Generate

NO_TOKENS = pack(np.empty(0, np.int32))


class TokenChoice:
    """Delivered tokens of one choice; `cached_tokens` of its prompt were in a node's cache.

    `weights` is the fingerprint of the weights of the node that produced or repeated them; "" if it is not known.
    """

    __slots__ = (
        "_max_tokens",
        "_recorded",
        "_with_logprobs",
        "cached_tokens",
        "finished",
        "index",
        "tokens",
        "weights",
    )

    def __init__(self, index: int, max_tokens: int, with_logprobs: bool) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.cached_tokens = 0
        self.finished = False
        self.weights = ""
        self._recorded = 0
        self._max_tokens = max_tokens
        self._with_logprobs = with_logprobs

    def add(self, delta: Delta) -> None:
        new = delta.tokens
        if len(self.tokens) + len(new) > self._max_tokens:
            raise WireError(f"received more than the {self._max_tokens} requested tokens")
        if self._with_logprobs and len(delta.logprobs or ()) != len(new):
            raise WireError("received tokens without the requested logprobs")
        self.tokens += new
        if delta.cached_tokens:
            self.cached_tokens = max(self.cached_tokens, delta.cached_tokens)
        if delta.finish_reason is not None:
            self.finished = True

    def record_weights(self, weights: str) -> None:
        if len(self.tokens) > self._recorded:
            self.weights, self._recorded = weights, len(self.tokens)


class TokenLedger(Ledger[Delta]):
    """Ledger of a token request.

    `room` is the number of new tokens that a node must have room for, if there is such a node; None: max_tokens.
    `prompt` is private to the ledger and never modified. `sampling` always has a seed; `has_caller_seed` is True if the
    caller set it.
    """

    __slots__ = ("_room", "choices", "has_caller_seed", "prompt", "sampling", "text")

    lane = "token"
    choices: tuple[TokenChoice, ...]

    def __init__(
        self,
        model: str | None,
        prompt: TokenIds,
        sampling: Sampling,
        choices: int,
        text: str | None,
        key: str | None = None,
        room: int | None = None,
    ) -> None:
        super().__init__(model, len(prompt), RoutingHint(prompt, key), needs_of(sampling))
        self.prompt = prompt
        self.text = text
        self._room = (sampling.max_tokens or 0) if room is None else room
        seed = getrandbits(63) if sampling.seed is None else sampling.seed
        self.sampling = msgspec.structs.replace(sampling, seed=seed)
        self.has_caller_seed = sampling.seed is not None
        maximum = sys.maxsize if sampling.max_tokens is None else sampling.max_tokens
        self.choices = tuple(TokenChoice(index, maximum, sampling.logprobs is not None) for index in range(choices))

    @property
    def digest(self) -> bytes:
        """Digest of model, prompt and parameters without the seed."""
        parameters = (self.model, msgspec.structs.replace(self.sampling, seed=None))
        return sha256(self.prompt.tobytes() + msgspec.msgpack.encode(parameters)).digest()

    @property
    def unfinished(self) -> list[TokenChoice]:
        return [choice for choice in self.choices if not choice.finished]

    @property
    def delivered_tokens(self) -> int:
        return sum(len(choice.tokens) for choice in self.choices)

    @property
    def size(self) -> RequestSize:
        delivered = max([len(choice.tokens) for choice in self.choices if not choice.finished], default=0)
        prompt = max(len(self.prompt), self.refused_context + 1)
        return RequestSize(prompt, delivered, max(0, self._room - delivered))

    @property
    def weights(self) -> str:
        return next((choice.weights for choice in self.choices if choice.tokens and not choice.finished), "")

    def record_weights(self, weights: str) -> None:
        for choice in self.choices:
            choice.record_weights(weights)

    def has_weights(self, weights: str) -> bool:
        """Return whether, as far as is known, nodes with `weights` produced what was delivered of the unfinished
        choices.
        """
        return not weights or all(choice.weights in ("", weights) for choice in self.unfinished)

    @property
    def cached_tokens(self) -> int:
        """Number of prompt tokens that a node had in its cache."""
        # A node that continues an answer may have cached delivered tokens, too.
        return min(len(self.prompt), max(choice.cached_tokens for choice in self.choices))

    def build_request(self, choices: Sequence[TokenChoice], *, with_delivered: bool = True) -> Generate:
        """Return a request for the rest of `choices`; without `with_delivered`, for all of their tokens."""
        return Generate(
            model=self.model,
            prompt=pack(self.prompt),
            sampling=self.sampling,
            starts=tuple(_start(choice, choice.tokens if with_delivered else []) for choice in choices),
            text=self.text,
        )

    def finish_full_choices(self) -> list[Delta]:
        maximum = self.sampling.max_tokens
        full = [choice for choice in self.unfinished if maximum is not None and len(choice.tokens) >= maximum]
        for choice in full:
            choice.finished = True
        return [Delta(choice.index, [], finish_reason="length") for choice in full]


def _start(choice: TokenChoice, delivered: list[int]) -> ChoiceStart:
    return ChoiceStart(choice.index, pack(np.array(delivered, np.int32)) if delivered else NO_TOKENS)
