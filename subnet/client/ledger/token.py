"""The ledger of the token lane: token ids in, token ids out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from random import getrandbits

import msgspec
import numpy as np

from subnet.client.ledger.base import Ledger
from subnet.errors import WireError
from subnet.generation import Delta, Sampling
from subnet.pool.policies.base import RoutingHint
from subnet.wire.messages import ChoiceStart, Generate
from subnet.wire.tensors import TokenIds, pack

NOTHING = pack(np.empty(0, np.int32))


class Choice:
    """One of the answers: the tokens delivered so far, at most `most`, and whether it is complete. `cached` is how many
    of its prompt a node had in its cache.
    """

    __slots__ = ("_most", "_with_logprobs", "cached", "finished", "index", "tokens")

    def __init__(self, index: int, most: int, with_logprobs: bool) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.cached = 0
        self.finished = False
        self._most = most
        self._with_logprobs = with_logprobs

    def add(self, delta: Delta) -> None:
        new = delta.tokens
        if len(self.tokens) + len(new) > self._most:
            raise WireError(f"received more than the {self._most} requested tokens")
        if self._with_logprobs and len(delta.logprobs or ()) != len(new):
            raise WireError("received tokens without the requested logprobs")
        self.tokens += new
        if delta.cached_tokens:
            self.cached = max(self.cached, delta.cached_tokens)
        if delta.finish_reason is not None:
            self.finished = True


class TokenLedger(Ledger[Delta]):
    """`prompt` is private to it and never written to; `sampling` always has a seed, and `seeded` tells whether the
    caller chose it.
    """

    __slots__ = ("choices", "prompt", "sampling", "seeded", "text")

    lane = "token"
    choices: tuple[Choice, ...]

    def __init__(
        self,
        model: str | None,
        prompt: TokenIds,
        sampling: Sampling,
        choices: int,
        text: str | None,
        key: str | None = None,
    ) -> None:
        super().__init__(model, len(prompt), RoutingHint(prompt, key))
        self.prompt = prompt
        self.text = text
        seed = getrandbits(63) if sampling.seed is None else sampling.seed
        self.sampling = msgspec.structs.replace(sampling, seed=seed)
        self.seeded = sampling.seed is not None
        most = sys.maxsize if sampling.max_tokens is None else sampling.max_tokens
        self.choices = tuple(Choice(index, most, sampling.logprobs is not None) for index in range(choices))

    @property
    def unfinished(self) -> list[Choice]:
        return [choice for choice in self.choices if not choice.finished]

    @property
    def delivered(self) -> int:
        return sum(len(choice.tokens) for choice in self.choices)

    @property
    def cached(self) -> int:
        """Tokens of the prompt that a node had in its cache. One that goes on with an answer may have more than it."""
        return min(len(self.prompt), max(choice.cached for choice in self.choices))

    def request(self, choices: Sequence[Choice], *, with_delivered: bool = True) -> Generate:
        """Ask a node for what is missing of `choices`; without what was delivered, for them from their beginning."""
        return Generate(
            model=self.model,
            prompt=pack(self.prompt),
            sampling=self.sampling,
            starts=tuple(_start(choice, choice.tokens if with_delivered else []) for choice in choices),
            text=self.text,
        )

    def close_full(self) -> list[Delta]:
        limit = self.sampling.max_tokens
        full = [choice for choice in self.unfinished if limit is not None and len(choice.tokens) >= limit]
        for choice in full:
            choice.finished = True
        return [Delta(choice.index, [], finish_reason="length") for choice in full]


def _start(choice: Choice, delivered: list[int]) -> ChoiceStart:
    return ChoiceStart(choice.index, pack(np.array(delivered, np.int32)) if delivered else NOTHING)
