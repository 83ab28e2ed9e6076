"""Interface of the work of embedding the inputs of a request, on either lane."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from adapter.generation.base import TriedNodes, Work
from subnet.client.prompt_scoring import PromptEvaluator


class EmbeddingWork(Work):
    """Embedding of all inputs of a request, by the nodes that `_evaluator` chooses: None before it runs."""

    _evaluator: PromptEvaluator | None = None

    @property
    def tried_nodes(self) -> Sequence[TriedNodes]:
        return () if self._evaluator is None or not self._evaluator.nodes else (self._evaluator,)

    @abstractmethod
    async def response(self) -> bytes | Sequence[bytes]:
        """Return the JSON of the response, or blocks of it; to be called after `run`. Raises BadRequest."""
