"""Text completion on the token lane, with the part of each choice that the gateway makes from its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapter.api.common.logprob_types import TextLogprobs
from adapter.api.completions.batch import ChoicePrefix, CompletionBatch, run_bounded, total_usage
from adapter.api.completions.text_logprobs import prompt_logprobs
from adapter.decode.events import Event, Finished
from adapter.generation.base import TriedNodes
from adapter.generation.token_lane import TokenGeneration
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large
from subnet import RequestState, SessionManager
from subnet.aio import Sink
from subnet.client.prompt_scoring import PromptEvaluator
from subnet.generation import TokenLogprobs

# From this number of tokens on, formatting their logprobs takes so long that it is done in a thread.
_OFFLOAD_TOKENS = 256


class TokenBatch(CompletionBatch):
    """Batch of generations on the token lane.

    `generate` False: no tokens are generated. `echo`: a choice starts with its prompt. `num_logprobs`: number of
    most likely tokens whose logprobs are returned for each token of an echoed prompt (None: no logprobs).
    """

    completions: Sequence[TokenGeneration]

    def __init__(
        self,
        completions: Sequence[TokenGeneration],
        *,
        generate: bool = True,
        echo: bool = False,
        num_logprobs: int | None = None,
        token_ids: bool = False,
    ) -> None:
        super().__init__(completions, len(completions[0].choices))
        self._model = completions[0].model
        self._generates = generate
        self._echo = echo
        self._num_logprobs = num_logprobs
        self._token_ids = token_ids
        self._evaluator: PromptEvaluator | None = None

    @property
    def tried_nodes(self) -> Sequence[TriedNodes]:
        scored = [] if self._evaluator is None or not self._evaluator.nodes else [self._evaluator]
        return [*scored, *super().tried_nodes]

    async def compute_prefixes(self, sessions: SessionManager) -> None:
        """Set `prefixes`; nodes compute the logprobs of echoed prompts. Raises the errors of PromptEvaluator.score."""
        logprobs: Sequence[TextLogprobs | None] = [None] * len(self.completions)
        width = self._num_logprobs if self._echo else None
        if width is not None:
            scores: dict[TokenGeneration, list[TokenLogprobs]] = {}
            evaluator = self._evaluator = sessions.prompt_evaluator(
                self.card.id, priority=self.completions[0].priority, identity=self._model.identity
            )

            async def score(completion: TokenGeneration) -> None:
                prompt = completion.prompt
                scores[completion] = await evaluator.score(prompt, width) if len(prompt) > 1 else []

            await run_bounded(score, self.completions, sessions.capacity(self.card.id))
            size = sum(len(completion.prompt) for completion in self.completions)
            logprobs = await offload_if_large(
                size * OFFLOAD_THRESHOLD // _OFFLOAD_TOKENS, self._format_scores, scores, width
            )
        self.prefixes = [self._prefix(*each) for each in zip(self.completions, logprobs, strict=True)]

    def _format_scores(
        self, scores: Mapping[TokenGeneration, Sequence[TokenLogprobs]], width: int
    ) -> list[TextLogprobs]:
        return [
            prompt_logprobs(self._model, completion.prompt.tolist(), completion.text, scores[completion], width)
            for completion in self.completions
        ]

    async def _generate(self, sessions: SessionManager, emit: Sink[Event], state: RequestState | None) -> None:
        if self._generates:
            await super()._generate(sessions, emit, state)
            return
        self._used = total_usage([completion.usage for completion in self.completions])
        for index in range(len(self.completions) * self.choices):
            emit(Finished(index, "length"))

    def _prefix(self, completion: TokenGeneration, logprobs: TextLogprobs | None) -> ChoicePrefix:
        return ChoicePrefix(
            text=completion.text if self._echo else "",
            logprobs=logprobs,
            prompt_token_ids=completion.prompt if self._token_ids else None,
        )
