"""Base class of engines that draw each token from a model's logits."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Collection

import msgspec

from subnet.aio import Sink
from subnet.engines.base import Engine
from subnet.engines.sampling.grammar_state import GrammarCompiler
from subnet.engines.sampling.sampler import Sampler
from subnet.engines.stepping.stepper import Stepper
from subnet.engines.stepping.stepping_choice import Choice, Run
from subnet.engines.stepping.stepping_context import Context
from subnet.errors import ContextLengthExceeded, InvalidRequest
from subnet.generation import Delta, Job, Start
from subnet.node_info import Capabilities, TokenizerArtefact
from subnet.tensors import TokenIds
from subnet.threads import Threads

_grammars = Threads(2, "grammar")


class SteppingEngine(Engine):
    """Draws tokens from a model's logits, so that every field of Sampling works and an answer can resume at any token.

    A subclass loads the model, sets `card` and `artefact`, calls `_start` on entry, and stops `_stepper` on exit.
    """

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
            grammars=GrammarCompiler.kinds,
        )
        self._compiler: GrammarCompiler | None = None
        self._compiler_lock = asyncio.Lock()

    def _start(
        self,
        context: Context,
        vocab_size: int,
        end_tokens: Collection[int],
        prompt_cache: bool,
    ) -> None:
        """Start the stepper.

        `context` has `capacity` sequences of `card.context_length` tokens. `end_tokens` end a choice. `prompt_cache`:
        reuse common prefixes of prompts.
        """
        self._vocab_size = vocab_size
        self._end_tokens = frozenset(token for token in end_tokens if token < vocab_size)
        if not self._end_tokens:  # a grammar could not end an answer
            self.capabilities = msgspec.structs.replace(self.capabilities, grammars=())
        self._stepper = Stepper(context, self.capacity, self.card.context_length, prompt_cache)

    @abstractmethod
    def _tokenize(self, text: str) -> list[int]:
        """Return the token ids of plain text."""

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        self._validate(job)
        stop_tokens = frozenset(job.sampling.stop_tokens) | (
            frozenset() if job.sampling.ignore_eos else self._end_tokens
        )
        run = Run(job, emit, stop_tokens)
        choices = [await self._choice(run, start) for start in job.starts]
        try:
            for choice in list(choices):
                if len(choice.tokens) >= run.max_length:
                    choices.remove(choice)
                    run.deliver(choice.end_delta())
            self._stepper.submit(choices)
            await run.done
        finally:
            run.ended = True

    async def _choice(self, run: Run, start: Start) -> Choice:
        prompt, output = run.job.prompt.tolist(), start.delivered.tolist()
        grammar = None
        if run.job.sampling.grammar is not None:
            compiler = await self._load_compiler()
            grammar = await _grammars.run(compiler.compile, run.job.sampling.grammar, output)
        sampler = Sampler(run.job.sampling, start.choice, prompt, output, self._end_tokens, self._vocab_size)
        return Choice(run, start.choice, prompt + output, sampler, grammar)

    async def _load_compiler(self) -> GrammarCompiler:
        async with self._compiler_lock:
            if self._compiler is None:
                self._compiler = await _grammars.run(self._make_compiler)
        return self._compiler

    def _make_compiler(self) -> GrammarCompiler:
        artefact = TokenizerArtefact.from_bytes(self.artefact)
        # A model may have logits for more or fewer tokens than its tokenizer has.
        pieces = [*artefact.pieces, *[b""] * self._vocab_size][: self._vocab_size]
        control_tokens = {token for token in artefact.control if token < self._vocab_size}
        return GrammarCompiler(pieces, control_tokens | self._end_tokens, self._end_tokens, self._tokenize)

    def _validate(self, job: Job) -> None:
        context_length, vocab_size = self.card.context_length, self._vocab_size
        length = len(job.prompt) + max(len(start.delivered) for start in job.starts)
        if length >= context_length:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {context_length} tokens. However, the request has {length} "
                "tokens, which leaves no room for more."
            )
        token_arrays = (job.prompt, *(start.delivered for start in job.starts))
        if not len(job.prompt) or any(max_token_id(ids) >= vocab_size for ids in token_arrays):
            raise InvalidRequest(
                f"Invalid prompt: expected at least one token id, and ids between 0 and {vocab_size - 1}."
            )
        if any(not 0 <= token < vocab_size for token in job.sampling.logit_bias):
            raise InvalidRequest(
                f"Invalid value for 'logit_bias': expected token ids between 0 and {vocab_size - 1}.",
                param="logit_bias",
            )


def max_token_id(ids: TokenIds) -> int:
    """Return the largest id, or 0 if there are none."""
    return int(ids.max()) if len(ids) else 0
