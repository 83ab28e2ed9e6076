"""Fallback models: which error is raised if none of them can answer."""

from __future__ import annotations

import weakref
from functools import partial

import pytest

from adapter.decode.events import Event
from adapter.decode.usage import NO_USAGE, Usage
from adapter.errors import BadRequest, invalid
from adapter.generation.base import Candidate, Work
from adapter.generation.fallback import Fallback
from subnet import RemoteManager, RequestState, SessionManager
from subnet.aio import Sink
from subnet.errors import ClientLimited, ContentRefused, NodeLost, Overloaded
from subnet.node_info import ModelCard


class FailingWork(Work):
    """Work that raises `error` before it emits anything."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def card(self) -> ModelCard:
        return ModelCard(id="model", context_length=8, tokenizer="")

    @property
    def usage(self) -> Usage:
        return NO_USAGE

    async def run(self, sessions: SessionManager, emit: Sink[Event], state: RequestState | None = None) -> None:
        raise self._error


async def raised(*errors: Exception) -> Exception:
    """Return the error that reaches the client if the models, in order, fail with `errors`."""
    remaining = list(errors)

    async def prepare(candidate: Candidate) -> Work:
        return FailingWork(remaining.pop(0))

    fallback = Fallback([Candidate(f"model-{number}") for number in range(len(errors))], prepare)
    async with RemoteManager([]) as remotes:
        await fallback.prepare()
        with pytest.raises(Exception) as caught:  # noqa: PT011 the callers compare it
            await fallback.run(SessionManager(remotes), lambda: lambda event: None)
    assert not remaining
    return caught.value


@pytest.mark.parametrize("second", [NodeLost("second"), invalid("tools", "is not supported")])
async def test_error_of_the_requested_model_is_raised(second: NodeLost | BadRequest) -> None:
    """If the requested model and its fallback both fail, the client gets the error of the requested model."""
    first = NodeLost("first")
    assert await raised(first, second) is first


@pytest.mark.parametrize("first", [Overloaded("all"), ClientLimited("one")])
async def test_a_model_is_asked_when_too_many_wait_for_another(first: Overloaded | ClientLimited) -> None:
    """A request that may not wait for a model is not refused before its fallback was asked, which may be free."""
    assert await raised(first, NodeLost("second")) is first


@pytest.mark.parametrize("second", [ContentRefused("refused"), ZeroDivisionError("a bug")])
async def test_error_that_must_be_seen_is_not_replaced(second: Exception) -> None:
    """A refusal by a fallback reaches the client, and an internal error is logged as one, not as the first error."""
    assert await raised(NodeLost("first"), second) is second


async def test_request_is_released_while_the_answer_streams() -> None:
    """The last model's work runs without a reference to the request, which may be large while the answer is long."""

    class Body:
        pass

    class WorkThatLooks(FailingWork):
        async def run(self, *_: object, **__: object) -> None:
            seen.append(body_ref())

    body = Body()
    body_ref = weakref.ref(body)
    seen: list[Body | None] = []

    async def prepare(body: Body, candidate: Candidate) -> Work:
        return WorkThatLooks(NodeLost("unused"))

    fallback = Fallback([Candidate("model")], partial(prepare, body))
    del body
    async with RemoteManager([]) as remotes:
        await fallback.prepare()
        assert body_ref() is not None
        await fallback.run(SessionManager(remotes), lambda: lambda event: None)
    assert seen == [None]
