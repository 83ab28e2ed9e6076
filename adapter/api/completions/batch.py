"""The way of a text completion: one TokenGeneration for each prompt, all of them one answer."""

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

# Tokens whose logprobs take so long to write down that it is done offload_if_large.
_MANY = 1024


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What of its prompt a choice shows before anything of its own."""

    text: str = ""
    logprobs: TextLogprobs | None = None
    prompt_token_ids: list[int] | None = None


class CompletionBatch(Work):
    """Choice i of `completions[p]` has the index p * choices + i. `generated` False: nothing is.

    `echo`: a choice begins with its prompt, with the logprobs of that and of the `likeliest` tokens beside each of its
    tokens (None: none are wanted).
    """

    def __init__(
        self,
        completions: Sequence[TokenGeneration],
        *,
        generated: bool = True,
        echo: bool = False,
        num_logprobs: int | None = None,
        token_ids: bool = False,
    ) -> None:
        self.completions = completions
        self.model = completions[0].model
        self.choices = len(completions[0].choices)
        self._generated = generated
        self._echo = echo
        self._likeliest = num_logprobs
        self._token_ids = token_ids
        self._running: dict[TokenGeneration, None] = {}
        self._used = _total([])
        self._reader: PromptEvaluator | None = None
        self.openings: list[Opening] = []

    @property
    def card(self) -> ModelCard:
        return self.model.card

    @property
    def usage(self) -> Usage:
        """Of the prompts that were started so far."""
        return _total([self._used, *(completion.usage for completion in self._running)])

    @property
    def tried_nodes(self) -> Sequence[TriedNodes]:
        scored = [] if self._reader is None or not self._reader.nodes else [self._reader]
        return [*scored, *(asked for completion in self.completions for asked in completion.tried_nodes)]

    async def open(self, sessions: SessionManager) -> None:
        """Makes `openings`, one for each prompt. Raises what PromptEvaluator.score does: nodes compute the logprobs of
        a prompt."""
        scores: dict[int, TextLogprobs] = {}
        width = self._likeliest if self._echo else None
        if width is not None:
            reader = self._reader = sessions.prompt_evaluator(self.card.id, priority=self.completions[0].priority)

            async def score(completion: TokenGeneration) -> None:
                found = await reader.score(completion.prompt, width) if len(completion.prompt) > 1 else []
                tokens, text = completion.prompt.tolist(), completion.text
                size = len(tokens) * OFFLOAD_THRESHOLD // _MANY
                scores[id(completion)] = await offload_if_large(
                    size, prompt_logprobs, self.model, tokens, text, found, width
                )

            await self._each(score, sessions.capacity(self.card.id))
        self.openings = [self._opening(completion, scores.get(id(completion))) for completion in self.completions]

    async def run(
        self, sessions: SessionManager, emit: Sink[Event], *, may_queue: Callable[[], bool] = lambda: True
    ) -> None:
        """Emits the events of all choices as they come, and at last the usage.

        The first error ends all, and is raised; cancelling the call cancels the work on the nodes. Raises SubnetError.
        """
        if self._generated:
            await self._generate(sessions, emit, may_queue)
        else:
            self._used = _total([completion.usage for completion in self.completions])
            for index in range(len(self.completions) * self.choices):
                emit(Finished(index, "length"))
        emit(Used(self.usage, self._switched()))

    async def _generate(self, sessions: SessionManager, emit: Sink[Event], may_queue: Callable[[], bool]) -> None:
        def show(event: Event) -> None:
            if not isinstance(event, Used):
                emit(event)

        async def run(completion: TokenGeneration) -> None:
            self._running[completion] = None
            await completion.run(sessions, show, may_queue=may_queue)
            del self._running[completion]
            # Counted once: a chunk may ask what was used, and there may be thousands of prompts.
            self._used = _total([self._used, completion.usage])

        await self._each(run, sessions.capacity(self.model.card.id) // self.choices)

    async def _each(self, work: Callable[[TokenGeneration], Awaitable[None]], room: int) -> None:
        """At once, but no more than `room`: what the nodes have no slots for had better wait here."""
        slots = asyncio.Semaphore(max(1, room))

        async def bounded(completion: TokenGeneration) -> None:
            async with slots:
                await work(completion)

        await gather_or_cancel([bounded(completion) for completion in self.completions])

    def _opening(self, completion: TokenGeneration, logprobs: TextLogprobs | None) -> Opening:
        return Opening(
            text=completion.text if self._echo else "",
            logprobs=logprobs,
            prompt_token_ids=completion.prompt.tolist() if self._token_ids else None,
        )

    def _switched(self) -> tuple[str, ...]:
        """The nodes of those prompts that passed through several."""
        asked = [completion.ledger.nodes for completion in self.completions if completion.ledger is not None]
        return tuple(node for nodes in asked if len(nodes) > 1 for node in nodes)


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
