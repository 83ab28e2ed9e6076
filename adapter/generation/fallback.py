"""Tries one model after the other, until one of them answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from adapter.decode.events import Event
from adapter.errors import BadRequest, ModelNotFound, ModelUnusable
from adapter.generation.base import Start, Work
from adapter.request_id import current_request
from subnet import SessionManager
from subnet.aio import Sink
from subnet.client.resume.token import Diverged
from subnet.errors import ContentRefused, ContextLengthExceeded, NodeError, NoNodeAvailable, RequestError

logger = logging.getLogger(__name__)

W = TypeVar("W", bound=Work)

# Another model may do what these say of one.
_ELSEWHERE = (NodeError, NoNodeAvailable, ContextLengthExceeded, ModelNotFound, ModelUnusable)
# These say of a fallback that it is none for this request; of the model that was asked for, that the request is wrong.
_UNFIT = (BadRequest, RequestError)


class Fallback(Generic[W]):
    """Asks the models `names`, in order.

    A model that fails, is at capacity or has too short a context hands over to the next as long as nothing of its
    answer was delivered; one that refuses the content does not. `works` are those that were prepared so far; the last
    one counts. An error of the model that was asked for says more than those of its fallbacks: it is the one raised.
    """

    def __init__(self, names: Sequence[str], prepare: Callable[[str], Awaitable[W]]) -> None:
        self.works: list[W] = []
        self._names = list(names)
        self._prepare = prepare
        self._error: Exception | None = None
        self._begun = False

    @property
    def work(self) -> W:
        return self.works[-1]

    async def ready(self) -> None:
        """Prepares the first model that can do the work. Raises what `prepare` does."""
        while True:
            name = self._names.pop(0)
            try:
                self.works.append(await self._prepare(name))
                return
            except Exception as error:
                goes_on = self._goes_on(name, error)
            if not goes_on:
                raise self._due()

    async def run(self, sessions: SessionManager, start: Start) -> None:
        """Runs the work of the first model that can do it, after `ready`. An answer that one model began is continued
        by no other. `start` makes what takes an answer from its beginning.
        """
        if not self._names and self._error is None:
            return await self._run(sessions, start())

        def started() -> Sink[Event]:
            emit = start()

            def take(event: Event) -> None:
                self._begun = True
                emit(event)

            return take

        return await self.collect(sessions, started)

    async def collect(self, sessions: SessionManager, start: Start) -> None:
        """As `run`, for who shows nothing of an answer before it is whole: what was lost and cannot be gone on with is
        forgotten, and asked for once more.
        """
        again = True
        while True:
            try:
                return await self._run(sessions, start())
            except Exception as error:
                if again and isinstance(error, Diverged) and not self._begun:
                    goes_on, again = True, False
                    self._names.insert(0, self.work.card.id)
                else:
                    goes_on = self._goes_on(self.work.card.id, error)
            if not goes_on:
                raise self._due()
            await self.ready()

    async def _run(self, sessions: SessionManager, emit: Sink[Event]) -> None:
        try:
            await self.work.run(sessions, emit, may_queue=lambda: self._begun or not self._names)
        except Exception as error:
            if self._begun or self._error is None or isinstance(error, ContentRefused):
                raise
            raise self._error from error

    def _goes_on(self, name: str, error: Exception) -> bool:
        """Whether another model shall be asked; if not, an error is due."""
        unfit = self._error is not None and isinstance(error, _UNFIT)
        if self._begun or isinstance(error, ContentRefused) or not (unfit or isinstance(error, _ELSEWHERE)):
            self._error = error
            return False
        self._error = self._error or error
        if not self._names:
            return False
        logger.warning(
            "request %s: model %s failed, falling back to %s: %s", current_request.get(), name, self._names[0], error
        )
        return True

    def _due(self) -> Exception:
        """The error to raise. It is not kept: it will hold the frames that it is raised through, and they hold this."""
        error, self._error = self._error, None
        assert error is not None
        return error
