"""One choice, as a server gives it: where it ends, and what of it is a delta."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain

from subnet.aio import Sink
from subnet.errors import WireError
from subnet.generation import Delta, FinishReason, Sampling, TokenLogprobs


class Answer:
    """Emits what a server says of choice `number`, and nothing after its end. `ends` are the model's own end tokens.

    Servers differ in whether they tell the token that ended an answer, and few know all our stop tokens: it is cut
    here. `most` is the number of tokens that it may have. `cached` tokens of the prompt stand on the next delta.
    """

    def __init__(self, number: int, sampling: Sampling, ends: Collection[int], most: int, emit: Sink[Delta]) -> None:
        self.number = number
        self.tokens: list[int] = []
        self.finished = False
        self.cached = 0
        self._most = most
        self._stops = frozenset(sampling.stop_tokens) | frozenset(() if sampling.ignore_eos else ends)
        self._scored = sampling.logprobs is not None
        self._emit = emit

    @property
    def left(self) -> int:
        """How many tokens are still wanted."""
        return self._most - len(self.tokens)

    def sign(self) -> None:
        """A sign of life: the prompt is being read."""
        self._emit(Delta(self.number, []))

    def add(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[TokenLogprobs] | None = None,
        reason: FinishReason | None = None,
    ) -> None:
        """More of it. `logprobs` are as long as `tokens`, where they are wanted; `reason` ends it after them. Raises
        WireError for what is no token id.
        """
        if self.finished:
            return
        _check(tokens, logprobs or ())
        stop = next((at for at, token in enumerate(tokens) if token in self._stops), None)
        if stop is not None:
            tokens, reason = tokens[:stop], "stop"
        # A token that ends an answer which is full already was not asked for: it may come or not.
        if len(tokens) > self.left or (len(tokens) == self.left and (reason is None or stop is not None)):
            tokens, reason = tokens[: self.left], "length"
        if tokens or reason is not None:
            self._tell(list(tokens), logprobs, reason)

    def _tell(self, tokens: list[int], logprobs: Sequence[TokenLogprobs] | None, reason: FinishReason | None) -> None:
        self.tokens += tokens
        self.finished = reason is not None
        scores = list(logprobs or ())[: len(tokens)] if self._scored else None
        cached, self.cached = self.cached, 0
        self._emit(Delta(self.number, tokens, scores, reason, cached))


def _check(tokens: Sequence[int], logprobs: Sequence[TokenLogprobs]) -> None:
    ids = chain(tokens, *(entry.top_ids for entry in logprobs))
    if wrong := [token for token in ids if not 0 <= token < 2**31]:
        raise WireError(f"invalid token id: {wrong[0]}")
