"""Fallback to other models when a model cannot answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Generic, TypeVar

from adapter.decode.events import Event
from adapter.decode.usage import Usage
from adapter.errors import BadRequest, CompletionTooLong, ModelNotFound, ModelUnusable
from adapter.generation.aliases import name_as_requested
from adapter.generation.base import Candidate, SinkFactory, Work
from adapter.generation.delivered_answer import AnswerDiffersError, DeliveredAnswer, usage_of_continuation
from adapter.request_id import current_request
from subnet import RequestState, SessionManager
from subnet.aio import Sink
from subnet.client.resume.token import Diverged
from subnet.errors import (
    ClientLimited,
    ContentRefused,
    ContextLengthExceeded,
    NodeError,
    NoNodeAvailable,
    Overloaded,
    RepeatedFailure,
    RequestError,
)

logger = logging.getLogger(__name__)

W = TypeVar("W", bound=Work)

# By then, the breaker of a deployment that always loses its answers is open, and another deployment is asked.
_MAX_RESTARTS = 3

# Errors of a model after which the next one is tried. Where too many requests wait already, another model may be free.
_FALLBACK_ERRORS = (
    NodeError,
    NoNodeAvailable,
    Overloaded,
    ClientLimited,
    RepeatedFailure,
    ContextLengthExceeded,
    ModelNotFound,
    ModelUnusable,
)
# Errors that mean an invalid request if the requested model raises them. A fallback that raises them does not support
# the request, and is skipped; so is one whose answer differs from what was delivered.
_REQUEST_ERRORS = (BadRequest, RequestError, AnswerDiffersError)


class Fallback(Generic[W]):
    """Runs a request with the first of `candidates` that can answer it.

    The next model is tried if one fails, is at capacity or has too short a context, but not if it refuses the content;
    the same model on its other lane also if the first lane does not support the request. Once a part of an answer was
    delivered, the next model goes on only if it repeats that part. If all fail, the error of the requested model, the
    first, is raised, as it says more than those of its fallbacks. `works` has the work prepared for each model so far;
    `work` is the last of them.

    Errors name the requested model `requested`, as the client did (None: as the first candidate).
    `continue_text(candidate, text, tokens)` returns the work of continuing `text`, of `tokens` tokens, with a model
    that does not repeat it, or None if that is not possible. Without it, an answer never has the words of two models.

    With `may_bound`, models whose context has room for the prompt, but not for all requested tokens, are tried last,
    with `Candidate.bound`, that with the most room first. Not once an answer has begun, as its headers say whether it
    is bounded: further models get the same maximum of new tokens then.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        prepare: Callable[[Candidate], Awaitable[W]],
        continue_text: Callable[[Candidate, str, int], Awaitable[W | None]] | None = None,
        *,
        requested: str | None = None,
        may_bound: bool = False,
    ) -> None:
        self._model = candidates[0].model
        self._requested = requested or self._model
        self._continue_text = continue_text
        self._may_bound = may_bound
        self.works: list[W] = []
        self._remaining = list(candidates)
        # With fewer tokens than requested, of which Candidate.limit is what they have room for, if it is known.
        self._with_less_room: list[Candidate] = []
        self._current = self._remaining[0]
        self._prepare = prepare
        self._error: Exception | None = None
        self._first_failure: float | None = None
        self._started = monotonic()
        self._answer = _nothing_delivered()
        # Delivered tokens that are part of the prompt of the current work.
        self._prefix_tokens = 0

    @property
    def work(self) -> W:
        return self.works[-1]

    @property
    def usage(self) -> Usage:
        """Usage of the answer so far, by the work that is now at it."""
        usage = self.work.usage
        return usage_of_continuation(usage, self._prefix_tokens) if self._prefix_tokens else usage

    async def prepare(self) -> None:
        """Prepare the work of the first remaining model that can do it. Raises the errors of the `prepare` function."""
        while True:
            self._current = self._next_candidate()
            try:
                work = await self._prepare(self._current)
            except Exception as error:
                if isinstance(error, CompletionTooLong) and self._bound_later(error.room):
                    continue
                name_as_requested(error, self._model, self._requested)
                should_continue = self._should_fall_back(error)
            else:
                if work.room is None or not self._bound_later(work.room):
                    self.works.append(work)
                    return
                continue
            if not should_continue:
                raise self._take_error()

    @property
    def _has_next(self) -> bool:
        return bool(self._remaining or self._with_less_room)

    def _next_candidate(self) -> Candidate:
        if not self._remaining:
            best = max(self._with_less_room, key=lambda candidate: candidate.limit or 0)
            self._with_less_room.remove(best)
            return best
        candidate = self._remaining.pop(0)
        return candidate._replace(bound=True) if not self._has_next and self._can_bound else candidate

    @property
    def _can_bound(self) -> bool:
        return self._may_bound and not self._answer.started

    def _bound_later(self, room: int | None) -> bool:
        """Note that the current model has room for fewer tokens than requested; return False if it may not be bound."""
        if self._current.bound or not self._can_bound:
            return False
        self._with_less_room.append(self._current._replace(bound=True, limit=room))
        return True

    def _keep_bound(self) -> None:
        """Hold further models to the maximum of new tokens with which the answer began.

        Models that had room for fewer than requested may have room for that many.
        """
        others, self._with_less_room = self._with_less_room, []
        bound = self.work.bounded_tokens
        if bound == 0:
            # The bound of the answer is not known, so that it may be any.
            self._remaining = [candidate._replace(bound=True) for candidate in (*self._remaining, *others)]
        elif bound is not None:
            others = [other for other in others if other.limit is None or other.limit >= bound]
            self._remaining = [other._replace(bound=False, limit=bound) for other in (*self._remaining, *others)]

    async def run(self, sessions: SessionManager, start: SinkFactory) -> None:
        """Run the prepared work, or that of the first fallback that can do it, and stream its events.

        `start` creates the sink of the answer. Once a part of it was delivered, another model may go on only if it
        repeats that part word for word, or continues it by `continue_text`. Raises the error of the requested model if
        no model can answer, and of the one that began the answer if none can go on.
        """
        if not self._has_next and self._error is None:
            # They refer to the request, which would stay in memory for the whole stream.
            del self._prepare, self._continue_text
            return await self._run(sessions, start())
        try:
            await self._run_recorded(sessions, start)
        finally:
            # It refers to the sink, which may refer to this object: a cycle.
            self._answer = _nothing_delivered()

    async def _run_recorded(self, sessions: SessionManager, start: SinkFactory) -> None:
        sink, nodes, tokens = self._record(start), list[str](), 0

        def all_nodes() -> tuple[str, ...]:
            return (*nodes, *_nodes_of(self.work))

        while True:
            had_started = self._answer.started
            try:
                return await self._run(sessions, sink)
            except Exception as error:
                if self._answer.started and not had_started:
                    self._error = None
                    self._keep_bound()
                differs = isinstance(error, AnswerDiffersError)
                should_continue = self._should_fall_back(error, is_bound_later=self._was_refused_so_many(error))
            if differs and await self._prepare_continuation(tokens):
                sink, self._prefix_tokens = self._answer.continued(all_nodes, tokens, self.work.card.id), tokens
                continue
            if not should_continue:
                raise self._take_error()
            nodes += _nodes_of(self.work)
            tokens = max(tokens, self.usage.completion_tokens)
            await self.prepare()
            self._prefix_tokens = 0
            sink = self._answer.resume(all_nodes, tokens) if self._answer.started else self._record(start)

    async def _prepare_continuation(self, tokens: int) -> bool:
        """Prepare the work of continuing the delivered text with the last model; return whether that is possible."""
        text = self._answer.plain_text
        if self._continue_text is None or not text:
            return False
        try:
            work = await self._continue_text(self._current, text, tokens)
        except (*_FALLBACK_ERRORS, *_REQUEST_ERRORS):
            return False
        if work is None:
            return False
        logger.warning(
            "request %s: model %s continues the words of another model", current_request.get(), self._current
        )
        self.works.append(work)
        return True

    def _record(self, start: SinkFactory) -> Sink[Event]:
        self._answer = DeliveredAnswer(start())
        return self._answer.receive

    async def run_buffered(self, sessions: SessionManager, start: SinkFactory) -> None:
        """Like `run`, for callers that deliver an answer only once it is complete.

        Another model may replace one that fails in the middle of its answer. An answer that was lost and cannot be
        resumed (Diverged) is first restarted with the same model, up to _MAX_RESTARTS times.
        """
        restarts = 0
        while True:
            try:
                return await self._run(sessions, start())
            except Exception as error:
                if restarts < _MAX_RESTARTS and isinstance(error, Diverged):
                    should_continue, restarts = True, restarts + 1
                    self._remaining.insert(0, self._current)
                else:
                    should_continue = self._should_fall_back(error, is_bound_later=self._was_refused_so_many(error))
            if not should_continue:
                raise self._take_error()
            await self.prepare()

    async def _run(self, sessions: SessionManager, emit: Sink[Event]) -> None:
        state = RequestState(lambda: self._answer.started or not self._has_next, self._first_failure, self._started)
        try:
            await self.work.run(sessions, emit, state)
        except Exception as error:
            name_as_requested(error, self._model, self._requested)
            raise
        finally:
            self._first_failure = state.first_failure

    def _was_refused_so_many(self, error: Exception) -> bool:
        """Return whether the work was refused only for its number of new tokens, and may be tried again with fewer."""
        return self.work.may_bound(error) and self._bound_later(getattr(error, "room", None))

    def _should_fall_back(self, error: Exception, *, is_bound_later: bool = False) -> bool:
        """Record the error of the current model and return True if the next model should be tried."""
        if isinstance(error, ContentRefused) or not isinstance(error, _FALLBACK_ERRORS + _REQUEST_ERRORS):
            self._error = error
            return False
        only_refusals = self._error is None or _is_refusal(self._error)
        if self._error is None or (only_refusals and not _is_refusal(error)):
            self._error = error
        model, lane = self._current.model, self._current.lane
        has_other_lane = any(other.model == model and other.lane != lane for other in self._remaining)
        if only_refusals and _is_refusal(error) and not has_other_lane and not is_bound_later:
            return False
        if not self._has_next or not self._answer.resumable:
            return False
        logger.warning(
            "request %s: model %s failed, falling back to %s: %s",
            current_request.get(),
            self._current,
            (*self._remaining, *self._with_less_room)[0],
            error,
        )
        return True

    def _take_error(self) -> Exception:
        """Return the error to raise and drop the reference to it.

        Its traceback refers to frames that refer to this object, so a reference would be a cycle.
        """
        error, self._error = self._error, None
        assert error is not None
        return error


def _nothing_delivered() -> DeliveredAnswer:
    return DeliveredAnswer(lambda event: None)


def _nodes_of(work: Work) -> list[str]:
    return [node for tried in work.tried_nodes for node in tried.nodes]


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, _REQUEST_ERRORS) and not isinstance(error, _FALLBACK_ERRORS)
