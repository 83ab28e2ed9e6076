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

from subnet.engines.llama_cpp.model import NativeContext, NativeModel
from subnet.engines.llama_cpp.reader import Embedding, Reader, Score
from subnet.engines.stepping.prefill import MOST_ROWS
from subnet.engines.stepping.stepping_engine import SteppedEngine, highest
from subnet.errors import ContextLengthExceeded, InvalidRequest
from subnet.generation import TokenLogprobs
from subnet.models.card import describe
from subnet.wire.tensors import TokenIds


class LlamaCppEngine(SteppedEngine):
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
        super().__init__(capacity, embeddings=True, prompt_logprobs=True)
        self._path = model_path
        self._model_id = model_id
        self._tokenizer_json = tokenizer_json
        self._wanted_length = context_length
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._cache = prompt_cache

    async def __aenter__(self) -> Self:
        """Raises SettingsError or EngineFailed."""
        await asyncio.to_thread(self._load)
        ends = self._model.end_tokens | frozenset(self.card.stop_tokens)
        self._start(self._context, self._model.vocab_size, ends, self._cache)
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stepper.stop()
        await asyncio.to_thread(self._reader.close)
        self._context.close()
        self._model.close()

    def _tokenize(self, text: str) -> list[int]:
        return self._model.tokenize(text)

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

    def _check_text(self, tokens: TokenIds) -> None:
        length, vocab = self.card.context_length, self._vocab_size
        if not len(tokens) or highest(tokens) >= vocab:
            raise InvalidRequest(
                f"Invalid value for 'input': expected at least one token id, and ids between 0 and {vocab - 1}.",
                param="input",
            )
        if len(tokens) > length:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {length} tokens. However, the input has {len(tokens)} tokens."
            )
