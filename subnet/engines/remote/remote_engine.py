"""An engine that is a server elsewhere: what is the same for all of them."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from subnet.aio import Sink
from subnet.engines.base import Engine
from subnet.engines.remote.answer import Answer
from subnet.engines.remote.model import Model, reads_sample
from subnet.errors import ContextLengthExceeded, NodeError, NodeLost, NodeTimeout, RequestError, SettingsError
from subnet.generation import Delta, Job
from subnet.http.client import HttpClient
from subnet.http.node_spec import NodeSpec

# How long what a server said of itself is believed, and how long it may take to say it. In seconds.
_FRESH = 1.0
_PATIENCE = 10.0


class RemoteEngine(Engine):
    """Entering asks the server what it serves, `check` asks again: a server that was restarted with another model is
    described anew. Raises SettingsError where no tokenizer can be had.

    Each choice of a job is a request of its own, all at once, so that each has its own seed; the servers keep prompts.
    What a choice begins as is told by its prompt alone: none of these servers restores a sampler.
    """

    def __init__(self, spec: NodeSpec, clock: Callable[[], float] = monotonic) -> None:
        self._spec = spec
        self._clock = clock
        self._http = HttpClient(spec)
        self._said: object = None
        self._describing: asyncio.Task[None] | None = None
        self._checked = 0.0
        self._model: Model

    async def __aenter__(self) -> Self:
        try:
            await self._described()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        describing, self._describing = self._describing, None
        if describing is not None:
            describing.cancel()
            await asyncio.gather(describing, return_exceptions=True)
        await self._http.aclose()

    async def check(self) -> None:
        if self._clock() - self._checked < _FRESH:
            return
        try:
            await self._described()
        except SettingsError as error:
            raise NodeError(f"{self._http.peer} now serves a different model: {error.message}") from error

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        model = self._model
        room = model.card.context_length - len(job.prompt)
        if room <= 0:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {model.card.context_length} tokens. However, the prompt "
                f"has {len(job.prompt)} tokens."
            )
        wanted = job.sampling.max_tokens
        most = room if wanted is None else min(wanted, room)
        answers = [Answer(start.choice, job.sampling, model.card.stop_tokens, most, emit) for start in job.starts]
        if most == 0:
            for answer in answers:
                answer.add([], reason="length")
            return
        await _together([self._answer(model, job, answer) for answer in answers])

    async def _described(self) -> None:
        """Whoever asks may stop waiting: what was begun goes on, as the next one waits for it too."""
        if self._describing is None or self._describing.done():
            self._describing = asyncio.create_task(self._describe())
            self._describing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._describing)

    async def _describe(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                said = await self._ask()
        except TimeoutError as error:
            raise NodeTimeout(f"health check of {self._http.peer} timed out after {_PATIENCE:g} s") from error
        if said != self._said:
            self._model = await self._learn(said)
            self.card, self.artefact = self._model.card, self._model.artefact
            self.capacity, self.capabilities = self._model.capacity, self._model.capabilities
        self._said, self._checked = said, self._clock()

    async def _compare(self, artefact: bytes, question: dict[str, Any]) -> None:
        """Have the server tokenize SAMPLE, if it can. Raises SettingsError where its ids mean something else here."""
        try:
            answer = await self._http.post("/tokenize", question)
        except NodeLost:
            raise
        except (NodeError, RequestError):
            return
        if not reads_sample(artefact, answer):
            raise SettingsError(
                f"the tokenizer found for {self._http.peer} does not match its model; set `tokenizer` to the right one"
            )

    @abstractmethod
    async def _ask(self) -> Any:
        """What the server says of itself: equal to what it said before, unless it was changed. Raises NodeError."""

    @abstractmethod
    async def _learn(self, said: Any) -> Model:
        """What it serves, from what `_ask` gave. Raises NodeError, and SettingsError where no tokenizer can be had."""

    @abstractmethod
    async def _answer(self, model: Model, job: Job, answer: Answer) -> None:
        """Have the server write one choice into `answer`, to its end. Raises NodeError or RequestError."""


async def _together(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of `calls`; the first error of any ends them all, and is raised once they have ended."""
    if len(calls) == 1:
        return await calls[0]
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return None
