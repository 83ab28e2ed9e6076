"""One stateful generation over nodes that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from numpy.typing import ArrayLike

from subnet.authorizers import AuthorizerBase
from subnet.client.checks import check_sampling, check_travels, checked_prompt
from subnet.client.lease import Lease
from subnet.client.ledger import Ledger
from subnet.client.limits import Limits
from subnet.client.merge import merged
from subnet.client.policies import Want
from subnet.client.remote import Remote
from subnet.client.remote_manager import RemoteManager
from subnet.client.resume import Diverged, Resumption
from subnet.client.retry import Retry
from subnet.client.watchdog import Watchdog
from subnet.errors import (
    FirstTokenTimeout,
    NodeBusy,
    NodeError,
    NoNodeAvailable,
    SessionClosed,
    StallTimeout,
    Unauthorized,
    WireError,
)
from subnet.generation import Delta, Sampling
from subnet.messages import Accepted, Generate
from subnet.tensors import TokenIds


class Session:
    """One interaction with the subnet, which may pass through several nodes. Close it, or use SessionManager.

    `model` None takes any node; a `key` keeps sessions that belong together on one node, where the policy looks at
    it. Without an `authorizer` of its own it uses that of the manager. `ledger` is that of the last generation, None
    before the first.
    """

    def __init__(
        self,
        remote_manager: RemoteManager,
        authorizer: AuthorizerBase | None = None,
        *,
        model: str | None = None,
        key: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.ledger: Ledger | None = None
        self._manager = remote_manager
        self._authorizer = authorizer or remote_manager.authorizer
        self._model = model
        self._key = key
        self._limits = limits or Limits()
        self._watchdog: Watchdog | None = None
        self._running: AsyncGenerator[Delta, None] | None = None
        self._closed = False

    async def run_protocol_task(self, prompt: str, tensor: ArrayLike) -> AsyncGenerator[TokenIds, None]:
        """Generate after `tensor` (token ids, one-dimensional), whose text is `prompt`, with default sampling.

        Yields one-dimensional int32 arrays of new token ids as they come; `tensor` is copied, never written to.
        Raises as `generate` does.
        """
        async with aclosing(self.generate(tensor, text=prompt)) as deltas:
            async for delta in deltas:
                if delta.tokens:
                    yield np.array(delta.tokens, np.int32)

    async def generate(
        self, prompt: ArrayLike, sampling: Sampling | None = None, *, choices: int = 1, text: str | None = None
    ) -> AsyncGenerator[Delta, None]:
        """Generate `choices` answers to `prompt` (token ids, one-dimensional), whose text is `text`.

        Yields deltas as they come; each choice ends with one that has a finish_reason. Closing the generator
        cancels the work on the node.

        Raises InvalidRequest and ContextLengthExceeded for what no node can do, NoNodeAvailable or the last
        NodeError when attempts are spent, SessionClosed when the session is closed meanwhile.
        """
        if self._closed or self._running is not None:
            raise SessionClosed("the session is closed" if self._closed else "the session runs a generation already")
        sampling = sampling or Sampling()
        check_sampling(sampling, choices)
        ledger = self.ledger = Ledger(self._model, checked_prompt(prompt), sampling, choices, text)
        check_travels(ledger)
        self._watchdog = Watchdog()
        self._running = running = self._run(ledger, self._watchdog)
        try:
            async with aclosing(running):
                async for delta in running:
                    yield delta
            if ledger.unfinished:
                # Closed between two deltas: what was given so far must not pass for the whole.
                raise SessionClosed("the session was closed")
        finally:
            self._watchdog.close()
            self._running = None

    async def close(self) -> None:
        """End what runs. Safe to call twice."""
        self._closed = True
        running, watchdog = self._running, self._watchdog
        if running is None or watchdog is None:
            return
        # A generator that another task waits in cannot be closed from here: its wait is broken instead.
        if not watchdog.interrupt(SessionClosed("the session was closed")):
            await running.aclose()

    async def _run(self, ledger: Ledger, watchdog: Watchdog) -> AsyncGenerator[Delta, None]:
        retry = Retry(self._limits)
        while ledger.unfinished:
            lease = await self._lease(ledger, retry, watchdog)
            ledger.peers.append(lease.remote.peer)
            ledger.nodes.append(lease.remote.name)
            delivered = ledger.delivered
            try:
                async with aclosing(self._attempt(lease, ledger, watchdog)) as deltas:
                    async for delta in deltas:
                        retry.progressed()
                        yield delta
            except Diverged:
                lease.abandoned()
                if ledger.diverged:
                    raise
                ledger.diverged = True
            except NodeError as error:
                lease.failed(error)
                await watchdog.wait(asyncio.sleep(retry.failed(error, lease.remote.peer)))
            except BaseException:
                # The client's mistake, or its leaving: only what was delivered speaks of the node.
                if ledger.delivered > delivered:
                    lease.succeeded()
                else:
                    lease.abandoned()
                raise
            else:
                lease.succeeded()
            for delta in ledger.close_full():
                yield delta

    async def _lease(self, ledger: Ledger, retry: Retry, watchdog: Watchdog) -> Lease:
        want = Want(ledger.prompt, self._key)
        while True:
            try:
                return self._manager.lease(self._model, retry.excluded, want)
            except (NoNodeAvailable, NodeBusy) as error:
                pause = retry.waited(error)
            await watchdog.wait(asyncio.sleep(pause))

    async def _attempt(self, lease: Lease, ledger: Ledger, watchdog: Watchdog) -> AsyncGenerator[Delta, None]:
        remote = lease.remote
        resumption = Resumption(ledger, remote.resume)
        first, within = True, self._limits.first_token_within(len(ledger.prompt) + ledger.delivered)
        streams = [self._stream(remote, request) for request in resumption.requests]
        async with aclosing(streams[0] if len(streams) == 1 else merged(streams)) as stream:
            while ledger.unfinished:
                try:
                    received = await watchdog.wait(anext(stream), within)
                except TimeoutError:
                    raise _late(remote, first, within) from None
                except StopAsyncIteration:
                    raise WireError(f"{remote.peer} ended a stream before its end") from None
                if not received.tokens and received.finish_reason is None:
                    # A sign of life: the node is busy with other work, or still reads the prompt.
                    continue
                if first:
                    lease.answered()
                    first, within = False, self._limits.stall
                delta = resumption.new(received)
                if delta is not None:
                    ledger.record(delta)
                    yield delta

    async def _stream(self, remote: Remote, request: Generate) -> AsyncGenerator[Delta, None]:
        """What the node answers, once both have proved who they are."""
        trusted = self._authorizer is None
        if self._authorizer is not None:
            request = await self._authorizer.sign_request(request)
        async with aclosing(remote.protocol.rpc_inference_stream(request)) as stream:
            async for received in stream:
                if isinstance(received, Accepted):
                    await self._validate(received, request)
                    trusted = True
                elif trusted:
                    yield received
                else:
                    raise Unauthorized(f"{remote.peer} did not prove who it is")

    async def _validate(self, accepted: Accepted, request: Generate) -> None:
        if self._authorizer is not None:
            await self._authorizer.validate_response(accepted, request)


def _late(remote: Remote, first: bool, within: float) -> NodeError:
    if first:
        return FirstTokenTimeout(f"{remote.peer} gave no token within {within:.1f} s")
    return StallTimeout(f"{remote.peer} gave no further token within {within:.1f} s")
