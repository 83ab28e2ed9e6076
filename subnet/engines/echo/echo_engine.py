"""Echo engine: generates arbitrary tokens for all streams at a fixed rate."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import msgspec

from subnet.aio import Sink
from subnet.engines.base import Engine
from subnet.engines.echo.echo_stream import Stream
from subnet.engines.echo.echo_vocabulary import END, PIECES
from subnet.engines.echo.penalties import AdjustedStream, needs_logits
from subnet.errors import ContextLengthExceeded, to_subnet_error
from subnet.generation import Delta, Job
from subnet.node_info import Capabilities, ModelCard, Resume, TokenizerArtefact, digest, fingerprint_facts

# Steps that are late by more than this are not made up for, in seconds.
_MAX_LAG = 1.0


class EchoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the echo engine.

    `rate` is in tokens per second of each stream, 0 for unlimited; `delay` is the time before the first token, in
    seconds. An answer without max_tokens has `size` tokens.
    """

    rate: float = 0.0
    size: int = 64
    delay: float = 0.0
    capacity: int = 2048
    context_length: int = 131_072
    resume: Resume = "exact"


class Pace:
    """Schedule of `rate` steps per second from `start`; 0 is unlimited. Times are in seconds.

    A late step does not delay the following ones.
    """

    def __init__(self, rate: float, start: float) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._due = start

    def delay(self, now: float) -> float:
        """Schedule the next step and return the time until then, in seconds; 0 or less if it is due."""
        self._due = max(self._due + self._interval, now - _MAX_LAG)
        return self._due - now


class EchoEngine(Engine):
    """Advances all streams in common steps at the configured rate, like an engine with continuous batching."""

    name = "echo"

    def __init__(self, model: str = "echo", options: EchoOptions | None = None) -> None:
        self._options = options = options or EchoOptions()
        self.artefact = TokenizerArtefact(
            pieces=PIECES, control=[END], pattern=r"[\s\S]", merges=list(range(256))
        ).to_bytes()
        self.card = ModelCard(
            id=model,
            context_length=options.context_length,
            tokenizer=digest(self.artefact),
            stop_tokens=(END,),
            # The other options do not change an answer.
            weights=fingerprint_facts(self.name, "1", options.size),
        )
        self.capabilities = Capabilities(
            resume=options.resume, top_logprobs=20, penalties=True, logit_bias=True, min_tokens=True
        )
        self.capacity = options.capacity
        self._streams: dict[Stream, tuple[Sink[Delta], asyncio.Future[None]]] = {}
        self._has_streams = asyncio.Event()
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
        length = max(len(start.delivered) for start in job.starts) + len(job.prompt)
        if length >= self.card.context_length:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self.card.context_length} tokens. However, the request has "
                f"{length} tokens."
            )
        if self._options.delay:
            await asyncio.sleep(self._options.delay)
        stream_class = AdjustedStream if needs_logits(job.sampling) else Stream
        streams = [stream_class(job.prompt, start, job.sampling, self._options.size) for start in job.starts]
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[None]] = [loop.create_future() for _ in streams]
        self._streams.update((stream, (emit, future)) for stream, future in zip(streams, futures, strict=True))
        self._has_streams.set()
        try:
            await asyncio.gather(*futures)
        finally:
            for stream in streams:
                self._streams.pop(stream, None)

    async def _run_steps(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await self._has_streams.wait()
            self._has_streams.clear()
            pace = Pace(self._options.rate, now())
            while self._streams:
                self._step()
                await asyncio.sleep(pace.delay(now()))

    def _step(self) -> None:
        for stream, (emit, future) in list(self._streams.items()):
            try:
                delta = stream.step()
                emit(delta)
            except Exception as error:  # the other streams go on
                del self._streams[stream]
                if not future.done():
                    future.set_exception(to_subnet_error(error))
                continue
            if delta.finish_reason is not None:
                del self._streams[stream]
                if not future.done():
                    future.set_result(None)
