"""The echo engine: streams that step together at a pace."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import msgspec

from subnet.aio import Sink
from subnet.engines.base import Engine
from subnet.engines.echo.penalties import AdjustedStream, adjusted
from subnet.engines.echo.stream import Stream
from subnet.engines.echo.vocabulary import END, PIECES
from subnet.errors import ContextLengthExceeded
from subnet.generation import Delta, Job
from subnet.node_info import Capabilities, ModelCard, Resume, TokenizerArtefact, digest

# One that was stopped for longer does not make up for it. In seconds.
_MOST_BEHIND = 1.0


class EchoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` is in tokens per second and stream, 0 for as fast as it goes; `delay` seconds pass before the first.

    An answer without max_tokens has `size` tokens.
    """

    rate: float = 0.0
    size: int = 64
    delay: float = 0.0
    capacity: int = 2048
    context_length: int = 131_072
    resume: Resume = "exact"


class Pace:
    """`rate` steps a second from `start` on, 0 for as fast as it goes. Times are in seconds.

    A step that is late makes none of the next ones late.
    """

    def __init__(self, rate: float, start: float) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._due = start

    def pause(self, now: float) -> float:
        """How long to wait for the next step; 0 or less when it is due."""
        self._due = max(self._due + self._interval, now - _MOST_BEHIND)
        return self._due - now


class EchoEngine(Engine):
    """Steps all streams together at the pace asked for, as an engine with continuous batching does."""

    name = "echo"

    def __init__(self, model: str = "echo", options: EchoOptions | None = None) -> None:
        self._options = options = options or EchoOptions()
        self.artefact = TokenizerArtefact(
            pieces=PIECES, control=[END], pattern=r"[\s\S]", merges=list(range(256))
        ).to_bytes()
        self.card = ModelCard(
            id=model, context_length=options.context_length, tokenizer=digest(self.artefact), stop_tokens=(END,)
        )
        self.capabilities = Capabilities(
            resume=options.resume, top_logprobs=20, penalties=True, logit_bias=True, min_tokens=True
        )
        self.capacity = options.capacity
        self._streams: dict[Stream, tuple[Sink[Delta], asyncio.Future[None]]] = {}
        self._wanted = asyncio.Event()
        self._stepper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._stepper = asyncio.create_task(self._run_steps())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stepper is not None:
            self._stepper.cancel()
            await asyncio.gather(self._stepper, return_exceptions=True)

    async def run(self, job: Job, emit: Sink[Delta]) -> None:
        longest = max(len(start.delivered) for start in job.starts) + len(job.prompt)
        if longest >= self.card.context_length:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self.card.context_length} tokens. However, the request has "
                f"{longest} tokens."
            )
        if self._options.delay:
            await asyncio.sleep(self._options.delay)
        kind = AdjustedStream if adjusted(job.sampling) else Stream
        streams = [kind(job.prompt, start, job.sampling, self._options.size) for start in job.starts]
        loop = asyncio.get_running_loop()
        ends: list[asyncio.Future[None]] = [loop.create_future() for _ in streams]
        self._streams.update((stream, (emit, end)) for stream, end in zip(streams, ends, strict=True))
        self._wanted.set()
        try:
            await asyncio.gather(*ends)
        finally:
            for stream in streams:
                self._streams.pop(stream, None)

    async def _run_steps(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            pace = Pace(self._options.rate, time())
            while self._streams:
                self._step()
                await asyncio.sleep(pace.pause(time()))

    def _step(self) -> None:
        for stream, (emit, end) in list(self._streams.items()):
            delta = stream.step()
            emit(delta)
            if delta.finish_reason is not None:
                del self._streams[stream]
                if not end.done():
                    end.set_result(None)
