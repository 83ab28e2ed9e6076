"""Texts that are read and not continued: for their embedding, or for how likely each of their tokens was."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subnet.engines.llama_cpp.model import NativeContext, NativeModel
from subnet.engines.sampling.sampler import logprobs_of
from subnet.engines.stepping.prefill import MOST_ROWS
from subnet.engines.stepping.readings import Reading
from subnet.errors import EngineFailed
from subnet.generation import TokenLogprobs

ResultT = TypeVar("ResultT")

_SHORTEST = 512


class Reader:
    """A context beside that of the running choices. It is made when it is first needed, as long as the text that needs
    it, and again for a longer one. `longest` is in tokens; `pools_last`: the embedding of a text is that of its last
    token, else the mean of all."""

    def __init__(self, model: NativeModel, longest: int, threads: int, pools_last: bool) -> None:
        self.pools_last = pools_last
        self._model = model
        self._longest = longest
        self._threads = threads
        self._length = 0
        self._making = threading.Lock()
        self._made: deque[NativeContext] = deque()
        self._context: NativeContext | None = None

    def prepare(self, length: int) -> None:
        """Make room for a text of `length` tokens. Takes up to seconds: not for the stepping thread. Raises
        EngineFailed when there is no memory for it."""
        with self._making:
            if length <= self._length:
                return
            size = min(self._longest, max(_SHORTEST, 1 << (length - 1).bit_length()))
            self._made.append(NativeContext(self._model, 1, size, MOST_ROWS, self._threads, with_hidden_states=True))
            self._length = size

    def begin(self) -> NativeContext:
        """An empty context for a text that was prepared for. For the stepping thread, between two texts."""
        while self._made:
            self._drop()
            self._context = self._made.popleft()
        if self._context is None:
            raise EngineFailed("internal error: no context was prepared for this text")
        self._context.keep(0, 0)
        return self._context

    def close(self) -> None:
        """Once the stepping thread has ended."""
        with self._making:
            # Nothing is made from now on, not even by a thread that was late.
            self._length = self._longest
            while self._made:
                self._drop()
                self._context = self._made.popleft()
            self._drop()

    def _drop(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None


class TextReading(Reading[ResultT]):
    """Through the reader, which nothing else may use meanwhile."""

    def __init__(self, reader: Reader, tokens: Sequence[int]) -> None:
        self._reader = reader
        self._tokens = tokens
        self._context: NativeContext | None = None
        self._read = 0

    def advance(self, rows: int) -> ResultT | None:
        if self._context is None:
            self._context = self._reader.begin()
        end = min(self._read + rows, len(self._tokens))
        self._context.decode([(self._tokens[at], at, 0, True) for at in range(self._read, end)])
        for at in range(self._read, end):
            self._take(self._context, at, at - self._read)
        self._read = end
        return self._result() if end == len(self._tokens) else None

    @abstractmethod
    def _take(self, context: NativeContext, at: int, row: int) -> None:
        """The token at `at` was read, as row `row` of the last batch."""

    @abstractmethod
    def _result(self) -> ResultT: ...


class Embedding(TextReading[NDArray[np.float32]]):
    """The hidden states after the last layer, pooled as the reader says, as a vector of length 1."""

    def __init__(self, reader: Reader, tokens: Sequence[int]) -> None:
        super().__init__(reader, tokens)
        self._sum: NDArray[np.float64] | None = None

    def _take(self, context: NativeContext, at: int, row: int) -> None:
        # One by one: the sum does not depend on how the text was cut into pieces.
        state = context.hidden_state(row).astype(np.float64)
        self._sum = state if self._sum is None or self._reader.pools_last else self._sum + state

    def _result(self) -> NDArray[np.float32]:
        norm = 0.0 if self._sum is None else float(np.sqrt(np.square(self._sum).sum()))
        if self._sum is None or not 0 < norm < np.inf:
            raise EngineFailed("the model returned hidden states that cannot be normalised")
        return (self._sum / norm).astype(np.float32)


class Score(TextReading[list[TokenLogprobs]]):
    """How likely each token but the first was after those before it, with the `width` likeliest in its place."""

    def __init__(self, reader: Reader, tokens: Sequence[int], width: int) -> None:
        super().__init__(reader, tokens)
        self._width = width
        self._found: list[TokenLogprobs] = []

    def _take(self, context: NativeContext, at: int, row: int) -> None:
        if at + 1 < len(self._tokens):
            self._found.append(logprobs_of(context.logits(row), self._tokens[at + 1], self._width))

    def _result(self) -> list[TokenLogprobs]:
        return self._found
