"""What engines that are driven token by token have in common."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Collection

import msgspec

from subnet.aio import Sink
from subnet.engines.base import Engine
from subnet.engines.sampling.grammar import Grammars
from subnet.engines.sampling.sampler import Sampler
from subnet.engines.stepping.choice import Choice, Run
from subnet.engines.stepping.context import Context
from subnet.engines.stepping.prefill import Pace
from subnet.engines.stepping.stepper import Stepper
from subnet.errors import ContextLengthExceeded, InvalidRequest
from subnet.generation import Delta, Job, Start
from subnet.node_info import Capabilities, TokenizerArtefact
from subnet.wire.tensors import TokenIds


class SteppedEngine(Engine):
    """Draws the tokens itself from a model's logits, so that all of Sampling works, and an answer can be taken up at
    any token. A subclass loads the model, sets `card` and `artefact`, and calls `_start` on entering."""

    def __init__(self, capacity: int, *, embeddings: bool = False, prompt_logprobs: bool = False) -> None:
        self.capacity = capacity
        self.capabilities = Capabilities(
            resume="exact",
            top_logprobs=20,
            top_k=True,
            min_p=True,
            typical_p=True,
            penalties=True,
            logit_bias=True,
            min_tokens=True,
            ignore_eos=True,
            embeddings=embeddings,
            prompt_logprobs=prompt_logprobs,
            grammars=Grammars.kinds,
        )
        self._grammars: Grammars | None = None
        self._making_grammars = asyncio.Lock()

    def _start(
        self, context: Context, vocab_size: int, ends: Collection[int], cache: bool, pace: Pace | None = None
    ) -> None:
        """`context` has `capacity` sequences of `card.context_length` tokens. `ends` are tokens that end generation;
        for `cache` see Slots."""
        self._vocab_size = vocab_size
        self._ends = frozenset(token for token in ends if token < vocab_size)
        if not self._ends:  # nothing could tell that an answer has come to its end
            self.capabilities = msgspec.structs.replace(self.capabilities, grammars=())
        self._stepper = Stepper(context, self.capacity, self.card.context_length, cache, pace=pace)

    @abstractmethod
    def _tokenize(self, text: str) -> list[int]:
        """Token ids of plain text."""

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        self._check(job)
        stops = frozenset(job.sampling.stop_tokens) | (frozenset() if job.sampling.ignore_eos else self._ends)
        run = Run(job, emit, stops)
        choices = [await self._choice(run, start) for start in job.starts]
        try:
            for choice in list(choices):
                if len(choice.tokens) >= run.longest:
                    choices.remove(choice)
                    run.deliver(choice.empty())
            self._stepper.submit(choices)
            await run.done
        finally:
            run.over = True

    async def _choice(self, run: Run, start: Start) -> Choice:
        prompt, output = run.job.prompt.tolist(), start.delivered.tolist()
        grammar = None
        if run.job.sampling.grammar is not None:
            grammars = await self._load_grammars()
            grammar = await asyncio.to_thread(grammars.after, run.job.sampling.grammar, output)
        sampler = Sampler(run.job.sampling, start.choice, prompt, output, self._ends, self._vocab_size)
        return Choice(run, start.choice, prompt + output, sampler, grammar)

    async def _load_grammars(self) -> Grammars:
        async with self._making_grammars:
            if self._grammars is None:
                self._grammars = await asyncio.to_thread(self._make_grammars)
        return self._grammars

    def _make_grammars(self) -> Grammars:
        artefact = TokenizerArtefact.from_bytes(self.artefact)
        # Models may have logits for more tokens than their tokenizers have, or for fewer.
        pieces = [*artefact.pieces, *[b""] * self._vocab_size][: self._vocab_size]
        control = {token for token in artefact.control if token < self._vocab_size}
        return Grammars(pieces, control | self._ends, self._ends, self._tokenize)

    def _check(self, job: Job) -> None:
        length, vocab = self.card.context_length, self._vocab_size
        longest = len(job.prompt) + max(len(start.delivered) for start in job.starts)
        if longest >= length:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {length} tokens. However, the request has {longest} tokens, "
                "which leaves no room for more."
            )
        given = (job.prompt, *(start.delivered for start in job.starts))
        if not len(job.prompt) or any(highest(ids) >= vocab for ids in given):
            raise InvalidRequest(f"Invalid prompt: expected at least one token id, and ids between 0 and {vocab - 1}.")
        if any(not 0 <= token < vocab for token in job.sampling.logit_bias):
            raise InvalidRequest(
                f"Invalid value for 'logit_bias': expected token ids between 0 and {vocab - 1}.", param="logit_bias"
            )


def highest(ids: TokenIds) -> int:
    return int(ids.max()) if len(ids) else 0
