"""Prefill-only tasks of the llama.cpp engine: embeddings and prompt logprobs."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subnet.engines.llama_cpp.model import NativeContext, NativeModel
from subnet.engines.sampling.sampler import token_logprobs
from subnet.engines.stepping.prefill_queue import PrefillTask
from subnet.errors import EngineFailed
from subnet.generation import TokenLogprobs

ResultT = TypeVar("ResultT")

_MIN_LENGTH = 512


class PrefillContext:
    """Context for prefill-only tasks, separate from that of the running choices.

    It is created when it is first needed, and recreated for a text that is too long for it. `max_length` is in tokens.
    With `pools_last_token`, the embedding of a text is that of its last token, else the mean of all tokens.
    """

    def __init__(self, model: NativeModel, max_length: int, threads: int, pools_last_token: bool) -> None:
        self.pools_last_token = pools_last_token
        self._model = model
        self._max_length = max_length
        self._threads = threads
        self._length = 0
        self._lock = threading.Lock()
        self._prepared: deque[NativeContext] = deque()
        self._context: NativeContext | None = None

    def prepare(self, length: int) -> None:
        """Create a context for a text of `length` tokens unless there is one.

        Takes up to seconds, so it must not be called by the stepping thread. Raises EngineFailed if there is not enough
        memory.
        """
        with self._lock:
            if length <= self._length:
                return
            size = min(self._max_length, max(_MIN_LENGTH, 1 << (length - 1).bit_length()))
            self._prepared.append(NativeContext(self._model, 1, size, self._threads, with_hidden_states=True))
            self._length = size

    def start(self) -> NativeContext:
        """Return an empty context that is long enough for a prepared text.

        Called by the stepping thread, between two texts. Raises EngineFailed if none was prepared.
        """
        while self._prepared:
            self._close_context()
            self._context = self._prepared.popleft()
        if self._context is None:
            raise EngineFailed("internal error: no context was prepared for this text")
        self._context.truncate(0, 0)
        return self._context

    def close(self) -> None:
        """Free all contexts. Called after the stepping thread has ended."""
        with self._lock:
            # From now on `prepare` creates nothing, even if its thread was delayed.
            self._length = self._max_length
            while self._prepared:
                self._close_context()
                self._context = self._prepared.popleft()
            self._close_context()

    def _close_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None


class TextTask(PrefillTask[ResultT]):
    """Task that processes one text with the prefill context, which no other task may use meanwhile."""

    def __init__(self, prefill_context: PrefillContext, tokens: Sequence[int]) -> None:
        self._prefill_context = prefill_context
        self._tokens = tokens
        self._context: NativeContext | None = None
        self._position = 0

    def advance(self) -> ResultT | None:
        if self._context is None:
            self._context = self._prefill_context.start()
        end = min(self._position + self._context.piece_length, len(self._tokens))
        self._context.decode([(self._tokens[position], position, 0, True) for position in range(self._position, end)])
        for position in range(self._position, end):
            self._process_row(self._context, position, position - self._position)
        self._position = end
        return self._result() if end == len(self._tokens) else None

    @abstractmethod
    def _process_row(self, context: NativeContext, position: int, batch_row: int) -> None:
        """Process the token at `position`, which is row `batch_row` of the last batch."""

    @abstractmethod
    def _result(self) -> ResultT: ...


class EmbeddingTask(TextTask[NDArray[np.float32]]):
    """Computes an embedding of norm 1, pooled from the hidden states of the last layer."""

    def __init__(self, prefill_context: PrefillContext, tokens: Sequence[int]) -> None:
        super().__init__(prefill_context, tokens)
        self._sum: NDArray[np.float64] | None = None

    def _process_row(self, context: NativeContext, position: int, batch_row: int) -> None:
        # Summed one by one, so that the result does not depend on how the text was split into pieces.
        state = context.hidden_state(batch_row).astype(np.float64)
        self._sum = state if self._sum is None or self._prefill_context.pools_last_token else self._sum + state

    def _result(self) -> NDArray[np.float32]:
        norm = 0.0 if self._sum is None else float(np.sqrt(np.square(self._sum).sum()))
        if self._sum is None or not 0 < norm < np.inf:
            raise EngineFailed("the model returned hidden states that cannot be normalised")
        return (self._sum / norm).astype(np.float32)


class ScoringTask(TextTask[list[TokenLogprobs]]):
    """Computes the logprobs of each token but the first, with the `width` most likely tokens at its position."""

    def __init__(self, prefill_context: PrefillContext, tokens: Sequence[int], width: int) -> None:
        super().__init__(prefill_context, tokens)
        self._width = width
        self._logprobs: list[TokenLogprobs] = []

    def _process_row(self, context: NativeContext, position: int, batch_row: int) -> None:
        if position + 1 < len(self._tokens):
            self._logprobs.append(token_logprobs(context.logits(batch_row), self._tokens[position + 1], self._width))

    def _result(self) -> list[TokenLogprobs]:
        return self._logprobs
