"""A job under way, and each of its choices."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from subnet.aio import Sink
from subnet.engines.sampling.grammar import GrammarState
from subnet.engines.sampling.sampler import Sampler, logprobs_of
from subnet.errors import SubnetError
from subnet.generation import Delta, FinishReason, Job


class Choice:
    """One choice: the tokens it has (prompt and output), and how many of them its sequence in the context holds.

    Belongs to the stepping thread, once submitted. `fresh` tells that no step has given it anything yet.
    """

    def __init__(
        self, run: Run, number: int, tokens: list[int], sampler: Sampler, grammar: GrammarState | None
    ) -> None:
        self.run = run
        self.number = number
        self.tokens = tokens
        self.sampler = sampler
        self.grammar = grammar
        self.slot = -1
        self.held = 0
        self.leader: Choice | None = None
        self.fresh = True

    @property
    def pending(self) -> int:
        """How many tokens have yet to be decoded before the next can be drawn."""
        return len(self.tokens) - self.held

    def step(self, logits: NDArray[np.float32], limit: int) -> Delta:
        """Draw the next token. `limit` is the most tokens a sequence may have."""
        run = self.run
        token = self.sampler.draw(logits, self.grammar.allowed() if self.grammar else None)
        if token is None or token in run.stops:
            return self._delta([], logits, "stop")
        self.tokens.append(token)
        self.sampler.append(token)
        if self.grammar:
            self.grammar.append(token)
            if self.grammar.ended:
                return self._delta([token], logits, "stop")
        full = len(self.tokens) >= min(limit, run.longest)
        return self._delta([token], logits, "length" if full else None)

    def empty(self) -> Delta:
        """The only delta of a choice that has all its tokens already."""
        return self._delta([], np.empty(0, np.float32), "length")

    def sign_of_life(self) -> Delta:
        return Delta(self.number, [])

    def _delta(self, tokens: list[int], logits: NDArray[np.float32], reason: FinishReason | None) -> Delta:
        width = self.run.job.sampling.logprobs
        logprobs = None if width is None else [logprobs_of(logits, token, width) for token in tokens]
        cached, self.fresh = (self.run.cached or 0 if self.fresh else 0), False
        return Delta(self.number, tokens, logprobs, reason, cached)


class Run:
    """One call of the engine: what it asked for, where its deltas go, and how it ends.

    `stops` are tokens that end a choice, `longest` the tokens that prompt and output may have together, `cached`
    those of the prompt that earlier jobs had left in the context, None before it has a slot. A job that carries on what
    another began has none, for that one counted them. `over` may be set from any thread, and then nothing more is
    generated; `cached` belongs to the stepping thread, everything else to the event loop.
    """

    def __init__(self, job: Job, emit: Sink[Delta], stops: frozenset[int]) -> None:
        self.job = job
        self.stops = stops
        self.longest = len(job.prompt) + (job.sampling.max_tokens if job.sampling.max_tokens is not None else 1 << 40)
        self.cached = 0 if any(len(start.delivered) for start in job.starts) else None
        self.over = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._emit = emit
        self._open = len(job.starts)

    def deliver(self, delta: Delta) -> None:
        if self.over or self.done.done():
            return
        try:
            self._emit(delta)
        except Exception as error:
            self.fail(error)
            return
        self._open -= delta.finish_reason is not None
        if not self._open:
            self.over = True
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.over and not self.done.done():
            self.over = True
            self.done.set_exception(error)


Event = tuple[Run, Delta | SubnetError]
"""What the stepping thread tells the event loop."""
