"""The engine: llama.cpp in this process, driven token by token."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from subnet.engines.base import Emit, Engine
from subnet.engines.llama_cpp.choice import Choice, Run
from subnet.engines.llama_cpp.grammar import Grammars
from subnet.engines.llama_cpp.model import NativeContext, NativeModel
from subnet.engines.llama_cpp.prefill import MOST_ROWS
from subnet.engines.llama_cpp.reader import Embedding, Reader, Score
from subnet.engines.llama_cpp.sampler import Sampler
from subnet.engines.llama_cpp.stepper import Stepper
from subnet.errors import ContextLengthExceeded, InvalidRequest
from subnet.generation import Job, Start, TokenLogprobs
from subnet.models.card import describe
from subnet.node_info import Capabilities, TokenizerArtefact
from subnet.tensors import TokenIds


class LlamaCppEngine(Engine):
    """Serves one GGUF file to up to `capacity` choices at once, each with a context of its own.

    Greedy answers, and those drawn with a seed, can be taken up at any token and go on exactly as they would have: on
    one thread, logits are bitwise the same however the tokens before were batched. On more threads llama.cpp sums the
    attention of a lone choice beyond 512 tokens in another order, so that near ties may fall differently.

    `threads` defaults to all cores but one: llama.cpp's threads spin, and collapse when they compete for a core.
    `prompt_cache`: a prompt that begins as an earlier one did starts from what is left of that.
    """

    name = "llama.cpp"

    def __init__(
        self,
        *,
        model_path: Path,
        model_id: str | None = None,
        tokenizer_json: Path | None = None,
        context_length: int | None = None,
        capacity: int = 4,
        threads: int | None = None,
        prompt_cache: bool = True,
    ) -> None:
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
            embeddings=True,
            prompt_logprobs=True,
            grammars=Grammars.kinds,
        )
        self._path = model_path
        self._model_id = model_id
        self._tokenizer_json = tokenizer_json
        self._wanted_length = context_length
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._cache = prompt_cache
        self._grammars: Grammars | None = None
        self._making_grammars = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Raises SettingsError or EngineFailed."""
        await asyncio.to_thread(self._load)
        self._stepper = Stepper(self._context, self.capacity, self.card.context_length, self._cache)
        return self

    def _load(self) -> None:
        self.card, self.artefact = describe(self._path, self._model_id, self._wanted_length, self._tokenizer_json)
        self._model = NativeModel(self._path)
        try:
            rows = MOST_ROWS + self.capacity
            length = self.card.context_length
            self._context = NativeContext(self._model, self.capacity, length, rows, self._threads)
            self._reader = Reader(self._model, length, self._threads, self._context.pools_last)
        except BaseException:
            self._model.close()
            raise
        self._ends = self._model.end_tokens | frozenset(self.card.stop_tokens)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stepper.stop()
        await asyncio.to_thread(self._reader.close)
        self._context.close()
        self._model.close()

    async def run(self, job: Job, emit: Emit) -> None:
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

    async def embed(self, inputs: Sequence[TokenIds]) -> NDArray[np.float32]:
        for tokens in inputs:
            self._check_text(tokens)
        await asyncio.to_thread(self._reader.prepare, max(map(len, inputs), default=0))
        found = [await self._stepper.read(Embedding(self._reader, tokens.tolist())) for tokens in inputs]
        return np.array(found, np.float32).reshape(len(inputs), self._model.dimensions)

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        self._check_text(tokens)
        await asyncio.to_thread(self._reader.prepare, len(tokens))
        return await self._stepper.read(Score(self._reader, tokens.tolist(), width))

    async def _choice(self, run: Run, start: Start) -> Choice:
        prompt, output = run.job.prompt.tolist(), start.delivered.tolist()
        grammar = None
        if run.job.sampling.grammar is not None:
            grammars = await self._load_grammars()
            grammar = await asyncio.to_thread(grammars.after, run.job.sampling.grammar, output)
        sampler = Sampler(run.job.sampling, start.choice, prompt, output, self._ends, self._model.vocab_size)
        return Choice(run, start.choice, prompt + output, sampler, grammar)

    async def _load_grammars(self) -> Grammars:
        async with self._making_grammars:
            if self._grammars is None:
                artefact = TokenizerArtefact.from_bytes(self.artefact)
                control = {*artefact.control, *self._ends}
                self._grammars = await asyncio.to_thread(
                    Grammars, artefact.pieces, control, self._ends, self._model.tokenize
                )
        return self._grammars

    def _check(self, job: Job) -> None:
        length, vocab = self.card.context_length, self._model.vocab_size
        longest = len(job.prompt) + max(len(start.delivered) for start in job.starts)
        if longest >= length:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {length} tokens, but {longest} tokens leave no room for more."
            )
        given = (job.prompt, *(start.delivered for start in job.starts))
        if not len(job.prompt) or any(_top(ids) >= vocab for ids in given):
            raise InvalidRequest(f"token ids lie between 0 and {vocab - 1}, and a prompt has one at least")
        if any(not 0 <= token < vocab for token in job.sampling.logit_bias):
            raise InvalidRequest(f"token ids lie between 0 and {vocab - 1}", param="logit_bias")

    def _check_text(self, tokens: TokenIds) -> None:
        length, vocab = self.card.context_length, self._model.vocab_size
        if not len(tokens) or _top(tokens) >= vocab:
            raise InvalidRequest(f"token ids lie between 0 and {vocab - 1}, and a text has one at least", param="input")
        if len(tokens) > length:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {length} tokens, but the text has {len(tokens)}."
            )


def _top(ids: TokenIds) -> int:
    return int(ids.max()) if len(ids) else 0
