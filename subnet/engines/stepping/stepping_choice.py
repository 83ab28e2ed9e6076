"""State of a running job and of each of its choices."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from subnet.aio import Sink
from subnet.engines.sampling.grammar_state import GrammarState
from subnet.engines.sampling.sampler import Sampler, token_logprobs
from subnet.errors import SubnetError
from subnet.generation import Delta, FinishReason, Job


class Choice:
    """One choice of a running job. Owned by the stepping thread once it is submitted.

    `tokens` are prompt and output. The context's sequence `slot` holds the first `computed` of them. `leader` is the
    choice of the same run that processes the prompt for this one. `awaits_first_token` holds until a step has produced
    a delta for the choice.
    """

    def __init__(self, run: Run, index: int, tokens: list[int], sampler: Sampler, grammar: GrammarState | None) -> None:
        self.run = run
        self.index = index
        self.tokens = tokens
        self.sampler = sampler
        self.grammar = grammar
        self.slot = -1
        self.computed = 0
        self.leader: Choice | None = None
        self.awaits_first_token = True

    @property
    def pending(self) -> int:
        """Number of tokens to decode before the next one can be drawn."""
        return len(self.tokens) - self.computed

    @property
    def pending_prompt(self) -> int:
        """Number of tokens of the prompt that are not decoded yet; 0 if it is left to the leader."""
        return 0 if self.leader is not None else max(0, len(self.run.job.prompt) - self.computed)

    def step(self, logits: NDArray[np.float32], context_length: int) -> Delta:
        """Draw the next token from `logits`, float32, shape (vocab,). `context_length` is the maximum, in tokens.

        Raises EngineFailed for NaN logits and InvalidRequest if the grammar cannot be continued.
        """
        run = self.run
        token = self.sampler.draw(logits, self.grammar.allowed_tokens() if self.grammar else None)
        if token is None or token in run.stop_tokens:
            return self._delta([], logits, "stop")
        self.tokens.append(token)
        self.sampler.append(token)
        if self.grammar:
            self.grammar.append(token)
            if self.grammar.is_finished:
                return self._delta([token], logits, "stop")
        is_full = len(self.tokens) >= min(context_length, run.max_length)
        return self._delta([token], logits, "length" if is_full else None)

    def end_delta(self) -> Delta:
        """Return the only delta of a choice that already has all its tokens."""
        return self._delta([], np.empty(0, np.float32), "length")

    def keep_alive(self) -> Delta:
        return Delta(self.index, [])

    def _delta(self, tokens: list[int], logits: NDArray[np.float32], finish_reason: FinishReason | None) -> Delta:
        width = self.run.job.sampling.logprobs
        logprobs = None if width is None else [token_logprobs(logits, token, width) for token in tokens]
        cached_tokens, self.awaits_first_token = (self.run.cached_tokens or 0 if self.awaits_first_token else 0), False
        return Delta(self.index, tokens, logprobs, finish_reason, cached_tokens)


class Run:
    """One call of the engine: its job, the receiver of its deltas, and its result.

    `stop_tokens` end a choice. `max_length` is the maximum number of tokens of prompt and output together.
    `cached_tokens` is the number of prompt tokens reused from earlier jobs, None until the run has a slot, and 0 for a
    job that resumes another one, which has already reported them. `prompt_logits` are those after the prompt, for the
    first tokens of the choices that have a leader. `ended` may be set from any thread and stops the generation.
    `cached_tokens` and `prompt_logits` are owned by the stepping thread, everything else by the event loop.
    """

    def __init__(self, job: Job, emit: Sink[Delta], stop_tokens: frozenset[int]) -> None:
        self.job = job
        self.stop_tokens = stop_tokens
        self.max_length = len(job.prompt) + (1 << 40 if job.sampling.max_tokens is None else job.sampling.max_tokens)
        self.cached_tokens = 0 if any(len(start.delivered) for start in job.starts) else None
        self.prompt_logits: NDArray[np.float32] | None = None
        self.ended = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._emit = emit
        self._unfinished = len(job.starts)

    def deliver(self, delta: Delta) -> None:
        if self.ended or self.done.done():
            return
        try:
            self._emit(delta)
        except Exception as error:
            self.fail(error)
            return
        self._unfinished -= delta.finish_reason is not None
        if not self._unfinished:
            self.ended = True
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.ended and not self.done.done():
            self.ended = True
            self.done.set_exception(error)


Event = tuple[Run, Delta | SubnetError]
"""Result of a step for one run, passed from the stepping thread to the event loop."""
