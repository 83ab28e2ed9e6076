"""Scripted node in this process, for tests of everything above a protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from subnet.aio import Sink
from subnet.authorizers import AuthorizerBase
from subnet.errors import NodeLost, Unauthorized
from subnet.generation import Delta, FinishReason, TokenLogprobs
from subnet.node_info import Capabilities, ModelCard, NodeInfo, TokenizerArtefact, digest
from subnet.protocols.base import Protocol
from subnet.tensors import TokenIds, unpack
from subnet.wire import frames
from subnet.wire.messages import Accepted, ChoiceStart, Generate

BYTE_LEVEL = TokenizerArtefact(
    pieces=[bytes((byte,)) for byte in range(256)] + [b"<|end|>"],
    control=[256],
    pattern=r"[\s\S]",
    merges=list(range(256)),
).to_bytes()
DIMENSIONS = 8


class Pause(msgspec.Struct, frozen=True):
    """Pause of this number of seconds in a script; None: forever."""

    seconds: float | None = None


class Pauses:
    """Pauses in progress at `peer`."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, pause: Pause) -> None:
        """Wait until `pause` is over. Raises NodeLost if the node is closed during it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)
        timer = None if pause.seconds is None else loop.call_later(pause.seconds, _end, done)
        try:
            await done
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        for done in list(self._waiting):
            done.set_exception(NodeLost(f"{self._peer} was closed"))
        self._waiting.clear()


Step = int | Sequence[int] | Delta | Pause | Exception
Script = Sequence[Step] | Callable[[Generate], Sequence[Step]]


class MockProtocol(Protocol):
    """A node that plays `script` for every request: it delivers tokens, waits for each Pause and raises exceptions.

    A step is one token, several tokens that arrive together, a Delta, a Pause or an exception. Every choice gets the
    same script; it ends with "stop", or with "length" at max_tokens. A choice that already has tokens continues after
    as many tokens of the script, like an engine with exact resume. If `script` is callable, it returns the script for a
    request.

    If `capabilities` include embeddings, the embedding of a text depends only on its tokens; if they include prompt
    logprobs, every token has a logprob of -1. Both first play the pauses and exceptions of a script that is not
    callable.

    With an `authorizer`, `rpc_inference` exchanges signatures with that of the client.

    `requests` are the requests received, `open` counts running streams, and `cancelled` those closed before their end.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        peer: str = "mock",
        model: str = "mock",
        context_length: int = 4096,
        capacity: int = 1024,
        capabilities: Capabilities | None = None,
        artefact: bytes = BYTE_LEVEL,
        chat_template: str | None = None,
        tool_template: str | None = None,
        weights: str = "",
        authorizer: AuthorizerBase | None = None,
    ) -> None:
        self.peer = peer
        self.script = script
        self.requests: list[Generate] = []
        self.open = 0
        self.cancelled = 0
        self._pauses = Pauses(peer)
        self._authorizer = authorizer
        self._capacity = capacity
        self._capabilities = capabilities or Capabilities(resume="exact")
        self._artefact = artefact
        self._card = ModelCard(
            id=model,
            context_length=context_length,
            tokenizer=digest(artefact),
            chat_template=chat_template,
            tool_template=tool_template,
            weights=weights,
        )

    async def rpc_info(self) -> NodeInfo:
        return NodeInfo(
            node_id=self.peer,
            version="0",
            engine="mock",
            cards=(self._card,),
            capabilities=self._capabilities,
            capacity=self._capacity,
            running=self.open,
        )

    async def rpc_artefact(self, sha256: str) -> bytes:
        return self._artefact

    async def rpc_embed(self, inputs: Sequence[TokenIds], model: str | None = None) -> NDArray[np.float32]:
        if not self._capabilities.embeddings:
            return await super().rpc_embed(inputs, model)
        await self._play_faults()
        vectors = [np.random.default_rng(text.tolist()).standard_normal(DIMENSIONS) for text in inputs]
        return np.array([vector / np.linalg.norm(vector) for vector in vectors], np.float32)

    async def rpc_score(self, tokens: TokenIds, width: int, model: str | None = None) -> list[TokenLogprobs]:
        if not self._capabilities.prompt_logprobs:
            return await super().rpc_score(tokens, width, model)
        await self._play_faults()
        return [
            TokenLogprobs(-1.0, tuple(range(token, token + width)), (-1.0,) * width) for token in tokens[1:].tolist()
        ]

    async def rpc_inference(
        self, request: Generate, emit: Sink[Delta], authorizer: AuthorizerBase | None = None
    ) -> None:
        if authorizer is not None or self._authorizer is not None:
            await self._authenticate(request, authorizer)
        await super().rpc_inference(request, emit)

    async def _authenticate(self, request: Generate, client: AuthorizerBase | None) -> None:
        """Exchange signatures, as a client with the authorizer `client` and a node do over the wire."""
        if client is None:
            raise Unauthorized("the message is not signed, but a shared secret is required")
        if self._authorizer is None:
            raise Unauthorized(f"{self.peer} did not authenticate itself")
        content, reply = frames.encode(request), frames.encode(Accepted(request.call))
        auth = await client.sign_request(content, self.peer)
        await self._authorizer.validate_request(content, auth)
        await client.validate_response(reply, await self._authorizer.sign_response(reply, auth), auth)

    async def rpc_inference_stream(self, request: Generate) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        self.open += 1
        ended = False
        positions = {start.choice: _Position(start, request.sampling.max_tokens) for start in request.starts}
        try:
            for step in self.script(request) if callable(self.script) else self.script:
                if isinstance(step, Exception):
                    ended = True
                    raise step
                if isinstance(step, Pause):
                    await self._pauses.wait(step)
                    continue
                for delta in _deltas(step, positions):
                    ended = all(position.finished for position in positions.values())
                    yield delta
            for choice, position in positions.items():
                if not position.finished:
                    yield Delta(choice, [], finish_reason="stop")
            ended = True
        finally:
            self.open -= 1
            self.cancelled += not ended

    async def aclose(self) -> None:
        self._pauses.close()

    async def _play_faults(self) -> None:
        for step in () if callable(self.script) else self.script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Pause):
                await self._pauses.wait(step)


class _Position:
    """Position of one choice in the script."""

    def __init__(self, start: ChoiceStart, max_tokens: int | None) -> None:
        self.choice = start.choice
        self.finished = False
        self._skip = len(unpack(start.delivered))
        self._remaining = None if max_tokens is None else max_tokens - self._skip

    def advance(self, delta: Delta) -> Delta | None:
        """Return the part of `delta` that the choice does not have yet, or None."""
        skip, self._skip = self._skip, max(0, self._skip - len(delta.tokens))
        tokens = delta.tokens[skip:]
        if self.finished or (delta.tokens and not tokens):
            return None
        reason: FinishReason | None = delta.finish_reason
        if self._remaining is not None and len(tokens) >= self._remaining:
            tokens, reason = tokens[: self._remaining], "length"
        self._remaining = None if self._remaining is None else self._remaining - len(tokens)
        self.finished = reason is not None
        logprobs = None if delta.logprobs is None else delta.logprobs[skip : skip + len(tokens)]
        return Delta(self.choice, tokens, logprobs, reason, delta.cached_tokens)


def _deltas(step: int | Sequence[int] | Delta, positions: dict[int, _Position]) -> Iterator[Delta]:
    if isinstance(step, Delta):
        selected = [positions[step.choice]] if step.choice in positions else []
    else:
        selected = list(positions.values())
        step = Delta(0, [step] if isinstance(step, int) else list(step))
    for position in selected:
        if (delta := position.advance(step)) is not None:
            yield delta


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
