"""An engine without a model: paced, free of weights, and as deterministic as a real one. For tests and benchmarks.

It babbles common words and characters of several bytes. The next token depends on all tokens before it, as with a
model, and, when temperature is above 0, on a draw by (seed, choice, position). So greedy answers can be continued
from their tokens alone, seeded ones only by an engine that knows the position, and any token lost, doubled or
invented on the way changes everything after it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import msgspec

from subnet.engines.base import Emit, Engine
from subnet.errors import ContextLengthExceeded
from subnet.generation import Delta, FinishReason, Job, Sampling, Start, TokenLogprobs
from subnet.node_info import Capabilities, ModelCard, Resume, TokenizerArtefact, digest
from subnet.tensors import TokenIds

_TEXT = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you
were all her she there would their we him been has when who will no more if out so said what up its about into than
them can only other time new some could these two may first then do any like my now over such
"""
_WORDS = _TEXT.split()
_CHARACTERS = [char.encode() for char in ("é", "ß", "中", "語", "€", "🎉", "🦜", "👍🏽", "\n")]

END = 256
_FIRST_WORD = 257
PIECES = [bytes((byte,)) for byte in range(256)] + [b"<|end|>"] + [b" " + word.encode() for word in _WORDS]
_MASK = (1 << 64) - 1


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


class _Stream:
    """One choice under way."""

    def __init__(self, prompt: TokenIds, start: Start, sampling: Sampling, size: int) -> None:
        self.choice = start.choice
        self.position = 0
        self.sampling = sampling
        self.limit = size if sampling.max_tokens is None else sampling.max_tokens
        self.reason: FinishReason = "stop" if sampling.max_tokens is None else "length"
        self._state = 0
        self._pending = b""
        for token in prompt.tolist():
            self._see(token)
        for token in start.delivered.tolist():
            self._append(token)

    def step(self) -> Delta:
        """The next token; the last one comes with the finish reason."""
        if self.position >= self.limit:
            return Delta(self.choice, [], self._logprobs([]), self.reason)
        token = self._draw()
        self._append(token)
        last = self.position >= self.limit
        return Delta(self.choice, [token], self._logprobs([token]), self.reason if last else None)

    def _append(self, token: int) -> None:
        self._see(token)
        self.position += 1

    def _see(self, token: int) -> None:
        self._state = _mix(self._state ^ token)
        self._pending = self._pending + PIECES[token] if token < END else b""
        if not any(char.startswith(self._pending) and char != self._pending for char in _CHARACTERS):
            self._pending = b""

    def _draw(self) -> int:
        dice = self._state
        if self.sampling.temperature > 0:
            dice = _mix(dice ^ _mix((self.sampling.seed or 0) ^ (self.choice << 48) ^ self.position))
        if self._pending:
            tails = [char for char in _CHARACTERS if char.startswith(self._pending)]
            return tails[dice % len(tails)][len(self._pending)]
        if dice % 8 == 0:
            return _CHARACTERS[(dice >> 8) % len(_CHARACTERS)][0]
        return _FIRST_WORD + (dice >> 8) % len(_WORDS)

    def _logprobs(self, tokens: list[int]) -> list[TokenLogprobs] | None:
        width = self.sampling.logprobs
        if width is None:
            return None
        logprob = -(self._state % 1000) / 1000
        tops = tuple(logprob - 1 - i for i in range(width))
        return [
            TokenLogprobs(logprob, tuple((token + 1 + i) % len(PIECES) for i in range(width)), tops) for token in tokens
        ]


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
        self.capabilities = Capabilities(resume=options.resume, top_logprobs=20)
        self.capacity = options.capacity
        self._streams: dict[_Stream, tuple[Emit, asyncio.Future[None]]] = {}
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

    async def run(self, job: Job, emit: Emit) -> None:
        longest = max(len(start.delivered) for start in job.starts) + len(job.prompt)
        if longest >= self.card.context_length:
            raise ContextLengthExceeded(f"{longest} tokens, where {self.card.context_length} are the most")
        if self._options.delay:
            await asyncio.sleep(self._options.delay)
        streams = [_Stream(job.prompt, start, job.sampling, self._options.size) for start in job.starts]
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
        loop = asyncio.get_running_loop()
        pace = 1 / self._options.rate if self._options.rate else 0.0
        due = loop.time()
        while True:
            if not self._streams:
                self._wanted.clear()
                await self._wanted.wait()
            self._step()
            due = max(due + pace, loop.time())
            await asyncio.sleep(due - loop.time())

    def _step(self) -> None:
        for stream, (emit, end) in list(self._streams.items()):
            delta = stream.step()
            emit(delta)
            if delta.finish_reason is not None:
                del self._streams[stream]
                if not end.done():
                    end.set_result(None)


def _mix(value: int) -> int:
    """The finaliser of splitmix64 (https://prng.di.unimi.it/splitmix64.c), one step."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
