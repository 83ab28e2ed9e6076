"""Interface of engines, which run a model in or behind a node."""

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
from subnet.tensors import TokenIds


class Engine(ABC):
    """Runs one model. Used as `async with engine:`, which loads the model on entry and frees it on exit.

    `name`, `card`, `capabilities`, `capacity` (choices generated at once) and `artefact` (the encoded tokenizer) are
    valid once the engine is entered. All methods run on the event loop's thread and must not block it.
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
        """Raise NodeError if the engine cannot run requests, for example because its server is unreachable.

        May update the attributes that describe the model.
        """
        return

    @abstractmethod
    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        """Generate until every choice of the job has finished.

        Calls `emit` on the event loop's thread, in order per choice, as soon as there are tokens. Exactly one delta per
        choice has a finish_reason, and it is the last of that choice. Returns after the last delta.

        Deltas without tokens and finish_reason are keep-alives, for choices that wait for a slot or whose prompt is
        being processed. They are emitted only while the engine makes progress.

        `cached_tokens` is set on one delta of each choice that is not a keep-alive, if possible the first. It is the
        number of prompt tokens reused from earlier jobs: less than the prompt length, and 0 for a job with delivered
        tokens.

        Cancelling the call frees the job's slots within one engine step. The caller ensures that at most `capacity`
        choices run at once.

        Raises EngineFailed if the model or its server fails, ContextLengthExceeded if prompt and delivered tokens leave
        no room for another token, and InvalidRequest for anything the engine does not support.
        """

    async def embed(self, inputs: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Return an embedding of norm 1 for each text: float32, shape (len(inputs), dimensions).

        Cancelling the call stops the work. Raises InvalidRequest if the engine lacks the capability `embeddings` or if
        a text is empty or has unknown token ids, ContextLengthExceeded if a text is too long, and EngineFailed.
        """
        raise InvalidRequest("This model does not support embeddings.", param="model")

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        """Return the logprobs of each token but the first, given the tokens before it: len(tokens) - 1 items.

        Each item includes the `width` most likely tokens at that position. Raises InvalidRequest if the engine lacks
        the capability `prompt_logprobs`, and the same errors as `embed`.
        """
        raise InvalidRequest("This model does not support prompt logprobs.", param="logprobs")

    async def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of plain texts, without added tokens: texts of control tokens stay text.

        Only called for artefacts that are tokenized `on_node`. Raises InvalidRequest for a text that cannot be
        tokenized, NodeBusy and EngineFailed.
        """
        raise InvalidRequest("This model's engine does not tokenize.", param="model")
