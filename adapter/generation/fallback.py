"""One model after the other, until one of them answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from adapter.api.sse import Emit, Start
from adapter.errors import BadRequest, ModelNotFound, ModelUnusable
from adapter.generation.base import Answer
from adapter.generation.events import Event
from adapter.request_id import current_request
from subnet import SessionManager
from subnet.client.resume.token import Diverged
from subnet.errors import ContentRefused, ContextLengthExceeded, NodeError, NoNodeAvailable, RequestError

logger = logging.getLogger(__name__)

Prepare = Callable[[str], Awaitable[Answer]]

# Another model may do what these say of one.
_ELSEWHERE = (NodeError, NoNodeAvailable, ContextLengthExceeded, ModelNotFound, ModelUnusable)
# These say of a fallback that it is none for this request; of the model that was asked for, that the request is wrong.
_UNFIT = (BadRequest, RequestError)


class Chain:
    """Asks the models `names`, in order. A model that fails, is full or has no room for so long a conversation hands
    over to the next as long as nothing of it was delivered; one that refuses what was said does not.

    `answers` are those that were prepared so far, the last that which counts. An error of the model that was asked for
    says more than those of its fallbacks: it is the one that is raised.
    """

    def __init__(self, names: Sequence[str], prepare: Prepare) -> None:
        self.answers: list[Answer] = []
        self._names = list(names)
        self._prepare = prepare
        self._error: Exception | None = None
        self._begun = False

    @property
    def answer(self) -> Answer:
        return self.answers[-1]

    async def ready(self) -> None:
        """Prepare the first answer that can be. Raises what `prepare` does."""
        while True:
            name = self._names.pop(0)
            try:
                self.answers.append(await self._prepare(name))
                return
            except Exception as error:
                goes_on = self._goes_on(name, error)
            if not goes_on:
                raise self._due()

    async def run(self, sessions: SessionManager, start: Start) -> None:
        """As Answer.run, of the first model that answers; `ready` comes before. What was begun by one model no other
        goes on with. `start` gives what takes an answer from its beginning.
        """
        if not self._names and self._error is None:
            return await self._run(sessions, start())

        def started() -> Emit:
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
                    self._names.insert(0, self.answer.card.id)
                else:
                    goes_on = self._goes_on(self.answer.card.id, error)
            if not goes_on:
                raise self._due()
            await self.ready()

    async def _run(self, sessions: SessionManager, emit: Emit) -> None:
        try:
            await self.answer.run(sessions, emit, may_queue=lambda: self._begun or not self._names)
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
