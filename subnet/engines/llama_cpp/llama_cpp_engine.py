"""Engine that runs llama.cpp in this process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from subnet import threads
from subnet.artefact_cache import ArtefactCache, default_folder
from subnet.engines.llama_cpp.exactness import exact_rows
from subnet.engines.llama_cpp.model import MAX_ROWS, NativeContext, NativeModel
from subnet.engines.llama_cpp.prefill_tasks import EmbeddingTask, PrefillContext, ScoringTask
from subnet.engines.llama_cpp.tokenizer_process import TokenizerProcess
from subnet.engines.stepping.stepping_engine import SteppingEngine, max_token_id
from subnet.errors import ContextLengthExceeded, EngineFailed, InvalidRequest, NodeBusy, SettingsError
from subnet.generation import TokenLogprobs
from subnet.models.card import describe
from subnet.node_info import TokenizerArtefact
from subnet.tensors import TokenIds
from subnet.threads import Threads

# Requests that may wait for the tokenizer at once.
_MAX_TO_TOKENIZE = 64
# Characters that llama.cpp tokenizes in this process at once: 30,000 overflow its stack, see tokenizer_process.py.
_MAX_PART = 4096

logger = logging.getLogger(__name__)


class LlamaCppEngine(SteppingEngine):
    """Runs a GGUF file for up to `capacity` choices at once, each with `context_length` tokens of context.

    An answer can resume at any token and continues exactly as without the interruption: prompts are cut into pieces at
    fixed positions, and the other batches have no more rows than give bitwise equal logits, which is measured when the
    file is loaded for the first time. If not even a single row does, the capability `resume` is "replay".

    `tokenizer_json` replaces the tokenizer in the GGUF file. `threads` defaults to all cores but one, because
    llama.cpp's threads busy-wait and become very slow if they compete for a core. With `prompt_cache`, a prompt reuses
    the prefix that it has in common with an earlier one.
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
        self._requested_length = context_length
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._prompt_cache = prompt_cache
        self._tokenizer = TokenizerProcess(model_path)
        # The process handles one request at a time.
        self._tokenizing = Threads(1, "tokenizer")
        self._preparing = Threads(1, "prefill-context")
        self._to_tokenize = 0

    async def __aenter__(self) -> Self:
        """Load the model. Raises SettingsError if the file is invalid, EngineFailed if there is not enough memory."""
        await threads.run("load", self._load)
        end_tokens = self._model.end_tokens | frozenset(self.card.stop_tokens)
        self._start(self._context, self._model.vocab_size, end_tokens, self._prompt_cache)
        return self

    def _load(self) -> None:
        try:
            self._describe()
            self._model = NativeModel(self._path)
        except BaseException:
            self._tokenizer.close()
            raise
        try:
            rows = exact_rows(self._model, self._threads, self.card.weights)
            if not rows:
                logger.warning("answers of %s cannot be resumed exactly: its results are not repeatable", self.card.id)
                self.capabilities = msgspec.structs.replace(self.capabilities, resume="replay")
            context_length = self.card.context_length
            self._context = NativeContext(
                self._model, self.capacity, context_length, self._threads, max_rows=rows or MAX_ROWS
            )
            pools_last_token = self._context.pools_last_token
            self._prefill_context = PrefillContext(self._model, context_length, self._threads, pools_last_token)
        except BaseException:
            self._tokenizer.close()
            self._model.close()
            raise

    def _describe(self) -> None:
        cache = ArtefactCache(default_folder())
        self.card, self.artefact = describe(
            self._path, self._model_id, self._requested_length, self._tokenizer_json, self._tokenizer, cache
        )
        if TokenizerArtefact.from_bytes(self.artefact).on_node:
            # Starts the process, which the first request would wait for.
            self._tokenizer.tokenize([])
        else:
            self._tokenizer.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stepper.stop()
        self._tokenizing.close()
        await threads.run("close", self._tokenizer.close)
        await self._preparing.run(self._prefill_context.close)
        self._preparing.close()
        self._context.close()
        self._model.close()

    def _tokenize(self, text: str) -> list[int]:
        # Text of a grammar, for which any division into tokens will do.
        parts = (text[start : start + _MAX_PART] for start in range(0, len(text), _MAX_PART))
        return [token for part in parts for token in self._model.tokenize(part)]

    async def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        if self._to_tokenize >= _MAX_TO_TOKENIZE:
            raise NodeBusy(f"{self._to_tokenize} requests wait to be tokenized", retry_after=0.2)
        self._to_tokenize += 1
        # A call that has begun goes on when its request is cancelled, and counts until it ends.
        work = asyncio.wrap_future(self._tokenizing.submit(partial(self._tokenizer.tokenize, texts)))
        work.add_done_callback(self._tokenized)
        try:
            return await asyncio.shield(work)
        except SettingsError as error:
            raise EngineFailed(error.message) from error

    def _tokenized(self, work: asyncio.Future[list[TokenIds]]) -> None:
        self._to_tokenize -= 1
        if not work.cancelled():
            # Of a request that was cancelled, nobody else looks at it.
            work.exception()

    async def embed(self, inputs: Sequence[TokenIds]) -> NDArray[np.float32]:
        for tokens in inputs:
            self._validate_text(tokens)
        await self._preparing.run(self._prefill_context.prepare, max(map(len, inputs), default=0))
        tasks = [EmbeddingTask(self._prefill_context, tokens.tolist()) for tokens in inputs]
        embeddings = [await self._stepper.prefill(task) for task in tasks]
        return np.array(embeddings, np.float32).reshape(len(inputs), self._model.dimensions)

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        self._validate_text(tokens)
        await self._preparing.run(self._prefill_context.prepare, len(tokens))
        return await self._stepper.prefill(ScoringTask(self._prefill_context, tokens.tolist(), width))

    def _validate_text(self, tokens: TokenIds) -> None:
        context_length, vocab_size = self.card.context_length, self._vocab_size
        if not len(tokens) or max_token_id(tokens) >= vocab_size:
            raise InvalidRequest(
                f"Invalid value for 'input': expected at least one token id, and ids between 0 and {vocab_size - 1}.",
                param="input",
            )
        if len(tokens) > context_length:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {context_length} tokens. However, the input has {len(tokens)} "
                "tokens."
            )
