"""Text completion with several prompts: one generation per prompt, combined into one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from adapter.api.common.logprob_types import TextLogprobs
from adapter.decode.events import Event, Used
from adapter.decode.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from adapter.generation.base import Generation, TriedNodes, Work
from subnet import RequestState, SessionManager
from subnet.aio import Sink
from subnet.node_info import ModelCard
from subnet.tensors import TokenIds

T = TypeVar("T")

# Started in one iteration of the event loop, so that streams do not wait for thousands of them.
_MAX_STARTS = 16


class ChoicePrefix(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a choice that comes from its prompt, returned before the generated text."""

    text: str = ""
    logprobs: TextLogprobs | None = None
    prompt_token_ids: TokenIds | None = None

    @property
    def is_empty(self) -> bool:
        return not self.text and self.logprobs is None and self.prompt_token_ids is None


class CompletionBatch(Work):
    """The completions of all prompts of a request, each with the same number of `choices`; choice i of `completions[p]`
    has the index p * choices + i. `prefixes` has one entry for each prompt.
    """

    def __init__(self, completions: Sequence[Generation], choices: int) -> None:
        self.completions = completions
        self.choices = choices
        self.prefixes = [ChoicePrefix()] * len(completions)
        self._running: dict[Generation, None] = {}
        self._used = total_usage([])
        self._usage_extra: dict[str, Any] | None = None

    @property
    def card(self) -> ModelCard:
        return self.completions[0].card

    @property
    def fingerprint(self) -> str:
        return self.completions[0].fingerprint

    @property
    def usage(self) -> Usage:
        """Usage of the prompts that were started so far."""
        return total_usage([self._used, *(completion.usage for completion in self._running)])

    @property
    def tried_nodes(self) -> Sequence[TriedNodes]:
        return [tried for completion in self.completions for tried in completion.tried_nodes]

    @property
    def relaxed(self) -> Sequence[str]:
        return self.completions[0].relaxed

    @property
    def room(self) -> int | None:
        return self.completions[0].room

    @property
    def bounded_tokens(self) -> int | None:
        return min((each.bounded_tokens for each in self.completions if each.bounded_tokens is not None), default=None)

    def may_bound(self, error: Exception) -> bool:
        return any(completion.may_bound(error) for completion in self.completions)

    async def run(self, sessions: SessionManager, emit: Sink[Event], state: RequestState | None = None) -> None:
        """Emit the events of all choices as they arrive, and the usage at the end.

        The first error stops all completions and is raised. Cancelling the call cancels the work on the nodes. Raises
        SubnetError.
        """
        await self._generate(sessions, emit, state)
        tried = self.tried_nodes
        replayed, diverged = sum(one.replayed_tokens for one in tried), any(one.diverged for one in tried)
        emit(Used(self.usage, self._nodes_after_failover(), replayed, diverged=diverged, extra=self._usage_extra))

    async def _generate(self, sessions: SessionManager, emit: Sink[Event], state: RequestState | None) -> None:
        def forward(event: Event) -> None:
            if not isinstance(event, Used):
                emit(event)
            elif len(self.completions) == 1:
                # The other members of several requests, such as a price, cannot be added up.
                self._usage_extra = event.extra

        async def run(completion: Generation) -> None:
            self._running[completion] = None
            await completion.run(sessions, forward, self._state_of_each(state))
            del self._running[completion]
            # Summed up once: each chunk may have the usage, and there may be thousands of prompts.
            self._used = total_usage([self._used, completion.usage])

        limit = sessions.capacity(self.card.id, self.card.lane) // self.choices
        await run_bounded(run, self.completions, limit)

    def _state_of_each(self, state: RequestState | None) -> RequestState | None:
        """Return the state for one completion: of several, each has its own failures."""
        if state is None or len(self.completions) == 1:
            return state
        return RequestState(state.may_queue, started=state.started)

    def _nodes_after_failover(self) -> tuple[str, ...]:
        """Return the nodes of the prompts that more than one node worked on."""
        node_lists = [completion.ledger.nodes for completion in self.completions if completion.ledger is not None]
        return tuple(node for nodes in node_lists if len(nodes) > 1 for node in nodes)


async def run_bounded(work: Callable[[T], Awaitable[None]], items: Sequence[T], limit: int) -> None:
    """Run `work` on all items concurrently, at most `limit` at once: more would only queue for a node. The first error
    cancels the rest and is raised.
    """
    if len(items) == 1:
        return await work(items[0])
    slots = asyncio.Semaphore(max(1, limit))

    async def bounded(item: T) -> None:
        try:
            await work(item)
        finally:
            slots.release()

    try:
        async with asyncio.TaskGroup() as tasks:
            for index, item in enumerate(items, 1):
                await slots.acquire()
                tasks.create_task(bounded(item))
                if index % _MAX_STARTS == 0:
                    await asyncio.sleep(0)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return None


def total_usage(usages: Sequence[Usage]) -> Usage:
    """Return the sum of `usages`, those of different prompts."""
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
