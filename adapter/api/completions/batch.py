"""Text completion with several prompts: one TokenGeneration per prompt, combined into one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from adapter.api.common.logprob_types import TextLogprobs
from adapter.api.completions.text_logprobs import prompt_logprobs
from adapter.decode.events import Event, Finished, Used
from adapter.decode.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from adapter.generation.base import TriedNodes, Work
from adapter.generation.token_lane import TokenGeneration
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large
from subnet import SessionManager
from subnet.aio import Sink, gather_or_cancel
from subnet.client.prompt_scoring import PromptEvaluator
from subnet.node_info import ModelCard

# From this number of tokens on, formatting their logprobs takes so long that it is done in a thread.
_OFFLOAD_TOKENS = 1024


class ChoicePrefix(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a choice that comes from its prompt, returned before the generated text."""

    text: str = ""
    logprobs: TextLogprobs | None = None
    prompt_token_ids: list[int] | None = None


class CompletionBatch(Work):
    """The completions of all prompts of a request; choice i of `completions[p]` has the index p * choices + i.

    `generate` False: no tokens are generated. `echo`: a choice starts with its prompt. `num_logprobs`: number of
    most likely tokens whose logprobs are returned for each token of an echoed prompt (None: no logprobs).
    """

    def __init__(
        self,
        completions: Sequence[TokenGeneration],
        *,
        generate: bool = True,
        echo: bool = False,
        num_logprobs: int | None = None,
        token_ids: bool = False,
    ) -> None:
        self.completions = completions
        self.model = completions[0].model
        self.choices = len(completions[0].choices)
        self._generates = generate
        self._echo = echo
        self._num_logprobs = num_logprobs
        self._token_ids = token_ids
        self._running: dict[TokenGeneration, None] = {}
        self._used = _total([])
        self._evaluator: PromptEvaluator | None = None
        self.prefixes: list[ChoicePrefix] = []

    @property
    def card(self) -> ModelCard:
        return self.model.card

    @property
    def usage(self) -> Usage:
        """Usage of the prompts that were started so far."""
        return _total([self._used, *(completion.usage for completion in self._running)])

    @property
    def tried_nodes(self) -> Sequence[TriedNodes]:
        scored = [] if self._evaluator is None or not self._evaluator.nodes else [self._evaluator]
        return [*scored, *(tried for completion in self.completions for tried in completion.tried_nodes)]

    async def compute_prefixes(self, sessions: SessionManager) -> None:
        """Set `prefixes`, one for each prompt; nodes compute the logprobs of echoed prompts.

        Raises the errors of PromptEvaluator.score.
        """
        scores: dict[int, TextLogprobs] = {}
        width = self._num_logprobs if self._echo else None
        if width is not None:
            evaluator = self._evaluator = sessions.prompt_evaluator(self.card.id, priority=self.completions[0].priority)

            async def score(completion: TokenGeneration) -> None:
                token_scores = await evaluator.score(completion.prompt, width) if len(completion.prompt) > 1 else []
                tokens, text = completion.prompt.tolist(), completion.text
                size = len(tokens) * OFFLOAD_THRESHOLD // _OFFLOAD_TOKENS
                scores[id(completion)] = await offload_if_large(
                    size, prompt_logprobs, self.model, tokens, text, token_scores, width
                )

            await self._run_all(score, sessions.capacity(self.card.id))
        self.prefixes = [self._prefix(completion, scores.get(id(completion))) for completion in self.completions]

    async def run(
        self, sessions: SessionManager, emit: Sink[Event], *, may_queue: Callable[[], bool] = lambda: True
    ) -> None:
        """Emit the events of all choices as they arrive, and the usage at the end.

        The first error stops all completions and is raised. Cancelling the call cancels the work on the nodes. Raises
        SubnetError.
        """
        if self._generates:
            await self._generate(sessions, emit, may_queue)
        else:
            self._used = _total([completion.usage for completion in self.completions])
            for index in range(len(self.completions) * self.choices):
                emit(Finished(index, "length"))
        tried = self.tried_nodes
        replayed, diverged = sum(one.replayed_tokens for one in tried), any(one.diverged for one in tried)
        emit(Used(self.usage, self._nodes_after_failover(), replayed, diverged=diverged))

    async def _generate(self, sessions: SessionManager, emit: Sink[Event], may_queue: Callable[[], bool]) -> None:
        def forward(event: Event) -> None:
            if not isinstance(event, Used):
                emit(event)

        async def run(completion: TokenGeneration) -> None:
            self._running[completion] = None
            await completion.run(sessions, forward, may_queue=may_queue)
            del self._running[completion]
            # Summed up once: each chunk may have the usage, and there may be thousands of prompts.
            self._used = _total([self._used, completion.usage])

        await self._run_all(run, sessions.capacity(self.model.card.id) // self.choices)

    async def _run_all(self, work: Callable[[TokenGeneration], Awaitable[None]], limit: int) -> None:
        """Run `work` on all completions concurrently, at most `limit` at once: more would only queue for a node."""
        slots = asyncio.Semaphore(max(1, limit))

        async def bounded(completion: TokenGeneration) -> None:
            async with slots:
                await work(completion)

        await gather_or_cancel([bounded(completion) for completion in self.completions])

    def _prefix(self, completion: TokenGeneration, logprobs: TextLogprobs | None) -> ChoicePrefix:
        return ChoicePrefix(
            text=completion.text if self._echo else "",
            logprobs=logprobs,
            prompt_token_ids=completion.prompt.tolist() if self._token_ids else None,
        )

    def _nodes_after_failover(self) -> tuple[str, ...]:
        """Return the nodes of the prompts that more than one node worked on."""
        node_lists = [completion.ledger.nodes for completion in self.completions if completion.ledger is not None]
        return tuple(node for nodes in node_lists if len(nodes) > 1 for node in nodes)


def _total(usages: Sequence[Usage]) -> Usage:
    prompt = sum(usage.prompt_tokens for usage in usages)
    completion = sum(usage.completion_tokens for usage in usages)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(sum(usage.prompt_tokens_details.cached_tokens for usage in usages)),
        completion_tokens_details=CompletionTokensDetails(
            sum(usage.completion_tokens_details.reasoning_tokens for usage in usages)
        ),
    )
