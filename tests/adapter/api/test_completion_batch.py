"""Text completion with several prompts: what its generations share."""

from __future__ import annotations

import pytest

from adapter.api.completions.batch import CompletionBatch
from adapter.decode.events import Event
from adapter.decode.usage import NO_USAGE, Usage
from adapter.generation.base import Generation
from subnet import RemoteManager, RequestState, SessionManager
from subnet.aio import Sink
from subnet.node_info import ModelCard


class FailingOnce(Generation):
    """Generation that has a failure and records the state it got."""

    fingerprint = "fp"
    ledger = None

    def __init__(self) -> None:
        self.state: RequestState | None = None
        self.earlier_failure: float | None = None

    @property
    def card(self) -> ModelCard:
        return ModelCard(id="model", context_length=8, tokenizer="")

    @property
    def usage(self) -> Usage:
        return NO_USAGE

    async def run(self, sessions: SessionManager, emit: Sink[Event], state: RequestState | None = None) -> None:
        assert state is not None
        self.state, self.earlier_failure = state, state.first_failure
        state.first_failure = 1.0


@pytest.mark.parametrize("prompts", [1, 3])
async def test_each_of_several_prompts_has_its_own_failures(prompts: int) -> None:
    """A failure of one prompt leaves the others their time; that of the only one counts for the next model, too."""
    generations = [FailingOnce() for _ in range(prompts)]
    state = RequestState(lambda: False)
    async with RemoteManager([]) as remotes:
        await CompletionBatch(generations, 1).run(SessionManager(remotes), lambda event: None, state)
    assert [one.earlier_failure for one in generations] == [None] * prompts
    assert [one.state is state for one in generations] == [prompts == 1] * prompts
    assert [one.state is not None and one.state.may_queue() for one in generations] == [False] * prompts
    assert state.first_failure == (1.0 if prompts == 1 else None)
