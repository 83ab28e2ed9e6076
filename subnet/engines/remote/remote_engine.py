"""Base class of engines that forward requests to an inference server."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any, Self

import msgspec

from subnet.aio import Sink, gather_or_cancel
from subnet.engines.base import Engine
from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.draws import with_positional_draws
from subnet.engines.remote.remote_model import Model, matches_sample
from subnet.errors import ContextLengthExceeded, NodeError, NodeLost, NodeTimeout, RequestError, SettingsError
from subnet.generation import Delta, Job
from subnet.http.client import HttpClient
from subnet.http.node_spec import NodeSpec
from subnet.http.queue_watch import QueueWatcher

# How long a server's report is valid, and how long the server may take to return it, in seconds.
_REPORT_TTL = 1.0
_REPORT_TIMEOUT = 10.0


class RemoteEngine(Engine):
    """Forwards requests to the inference server at `spec.url`, of the type `kind`.

    Entering fetches the server's report on the model it serves, and `check` fetches it again, so that a server
    restarted with another model is described again. Entering raises SettingsError if no tokenizer is available.

    The choices of a job are separate, concurrent requests, so that each has its own seed; servers cache the prompt.
    Jobs with delivered tokens are not supported, because none of these servers can restore a sampler's state.
    """

    # Whether it depends on version and settings of the server what its seeds do.
    _may_draw_by_position = False

    def __init__(self, spec: NodeSpec, clock: Callable[[], float] = monotonic) -> None:
        # Detection leaves the type out, but where a server tells its queue depends on it.
        self._spec = msgspec.structs.replace(spec, kind=self.name)
        self._clock = clock
        self._http = HttpClient(self._spec)
        self._queue = QueueWatcher(self._spec, self._http)
        self._report: object = None
        self._refreshing: asyncio.Task[None] | None = None
        self._checked = 0.0
        self._model: Model

    async def __aenter__(self) -> Self:
        try:
            await self._refresh()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        refreshing, self._refreshing = self._refreshing, None
        if refreshing is not None:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)
        await self._http.aclose()

    async def check(self) -> None:
        if self._clock() - self._checked < _REPORT_TTL:
            return
        try:
            await self._refresh()
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
        requested = job.sampling.max_tokens
        max_tokens = room if requested is None else min(requested, room)
        end_tokens = model.card.stop_tokens
        outputs = [
            ChoiceOutput(start.choice, job.sampling, end_tokens, max_tokens, emit, start.position)
            for start in job.starts
        ]
        if max_tokens == 0:
            for output in outputs:
                output.add([], finish_reason="length")
            return
        await gather_or_cancel([self._generate_queued(model, job, output) for output in outputs])

    async def _generate_queued(self, model: Model, job: Job, output: ChoiceOutput) -> None:
        """Generate one choice, with keep-alives while the server has a queue and the choice has no token."""
        with self._queue.watch(output.keep_alive) as queue_watch:
            output.on_first_delta = queue_watch.stop
            await self._generate(model, job, output)

    async def _refresh(self) -> None:
        """Refresh the description of the model, or wait for the refresh that is running.

        Cancelling the call does not cancel the refresh, because other calls may wait for it.
        """
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh_now())
            self._refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._refreshing)

    async def _refresh_now(self) -> None:
        try:
            async with asyncio.timeout(_REPORT_TIMEOUT):
                report = await self._fetch_report()
        except TimeoutError as error:
            raise NodeTimeout(f"health check of {self._http.peer} timed out after {_REPORT_TIMEOUT:g} s") from error
        if report != self._report:
            model = await self._describe_model(report)
            self._model = await with_positional_draws(model, self._generate) if self._may_draw_by_position else model
            self.card, self.artefact = self._model.card, self._model.artefact
            self.capacity, self.capabilities = self._model.capacity, self._model.capabilities
        self._report, self._checked = report, self._clock()

    async def _verify_tokenizer(self, artefact: bytes, body: dict[str, Any]) -> None:
        """Compare the tokenizer with the server's on SAMPLE, if the server offers /tokenize.

        Raises SettingsError if the server's ids do not decode to SAMPLE.
        """
        try:
            response = await self._http.post("/tokenize", body)
        except NodeLost:
            raise
        except (NodeError, RequestError):
            return
        if not matches_sample(artefact, response):
            raise SettingsError(
                f"the tokenizer found for {self._http.peer} does not match its model; set `tokenizer` to the right one"
            )

    @abstractmethod
    async def _fetch_report(self) -> Any:
        """Return the server's description of itself, equal to the previous one unless it has changed.

        Raises NodeError.
        """

    @abstractmethod
    async def _describe_model(self, report: Any) -> Model:
        """Return the model to serve, from the result of `_fetch_report`.

        Raises NodeError, and SettingsError if no tokenizer is available.
        """

    @abstractmethod
    async def _generate(self, model: Model, job: Job, output: ChoiceOutput) -> None:
        """Generate one choice into `output`, to its end. Raises NodeError or RequestError."""
