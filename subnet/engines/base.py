"""The contract of an engine: what runs the model inside, or behind, a node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from subnet.aio import Sink
from subnet.errors import InvalidRequest
from subnet.generation import Delta, Job, TokenLogprobs
from subnet.node_info import Capabilities, ModelCard
from subnet.wire.tensors import TokenIds


class Engine(ABC):
    """Runs one model. Used as `async with engine:`; entering loads the model, leaving frees it.

    `name`, `card`, `capacity`, `capabilities` and `artefact` are valid from entering on.
    All methods run on the event loop's thread and must not block it.
    """

    name: str
    card: ModelCard
    capabilities: Capabilities
    capacity: int
    artefact: bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def check(self) -> None:
        """Raises NodeError while the engine cannot work: its server is away. What is said of it may have changed after
        this."""
        return

    @abstractmethod
    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        """Generate until every choice of the job has finished.

        Calls `emit` on the event loop's thread, in order per choice, as soon as tokens exist; exactly one delta
        per choice has a finish_reason, and it is the last of that choice. Returns after the last one.
        It may emit deltas without tokens and finish reason, as a sign of life of choices that wait or whose prompt is
        being read; never when nothing moved. `cached_tokens` stands on one other delta of a choice, the first if it can
        be known by then: tokens of the prompt that were left from earlier jobs, at most all but one, 0 for a job with
        delivered tokens.
        Cancelling the call frees the job's slots within one engine step. The caller sees to it that no more
        than `capacity` choices run at once.

        Raises EngineFailed when the model or its server breaks, ContextLengthExceeded when prompt and delivered
        tokens leave no room for one more, InvalidRequest for what the engine cannot do.
        """

    async def embed(self, inputs: Sequence[TokenIds]) -> NDArray[np.float32]:
        """A vector of length 1 for each text: float32, shape (len(inputs), dimensions). Cancelling the call ends it.

        Only engines with the capability `embeddings`; others raise InvalidRequest. Raises InvalidRequest for a text
        without tokens or with unknown ones, ContextLengthExceeded for one that is too long, EngineFailed.
        """
        raise InvalidRequest("This model does not support embeddings.", param="model")

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        """How likely the model finds each token but the first after those before it, and the `width` likeliest in its
        place: len(tokens) - 1 of them.

        Only engines with the capability `prompt_logprobs`; others raise InvalidRequest. Raises as `embed` does.
        """
        raise InvalidRequest("This model does not support prompt logprobs.", param="logprobs")
