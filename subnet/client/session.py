"""One stateful generation over nodes that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from time import monotonic

import numpy as np
from numpy.typing import ArrayLike

from subnet.authorizers import AuthorizerBase
from subnet.client.attempt import Attempt
from subnet.client.checks import check_sampling, check_travels, checked_prompt
from subnet.client.hedge import Hedger
from subnet.client.lease import Lease
from subnet.client.ledger import Ledger
from subnet.client.limits import Limits
from subnet.client.line import Place
from subnet.client.policies import Want
from subnet.client.remote_manager import RemoteManager
from subnet.client.resume import Diverged
from subnet.client.retry import Retry
from subnet.client.round import Round
from subnet.client.watchdog import Watchdog
from subnet.errors import NodeBusy, NodeError, NoNodeAvailable, SessionClosed
from subnet.generation import Delta, Sampling
from subnet.protocols.base import Emit
from subnet.pulled import pulled
from subnet.tensors import TokenIds


class Session:
    """One interaction with the subnet, which may pass through several nodes. Close it, or use SessionManager.

    `model` None takes any node; a `key` keeps sessions that belong together on one node, where the policy looks at
    it; the smaller its `priority`, the sooner it gets room on nodes that are full. Without an `authorizer` of its own
    it uses that of the manager. `ledger` is that of the last generation, None before the first.
    """

    def __init__(
        self,
        remote_manager: RemoteManager,
        authorizer: AuthorizerBase | None = None,
        *,
        model: str | None = None,
        key: str | None = None,
        priority: int = 0,
        limits: Limits | None = None,
        hedger: Hedger | None = None,
    ) -> None:
        self.ledger: Ledger | None = None
        self._manager = remote_manager
        self._authorizer = authorizer or remote_manager.authorizer
        self._model = model
        self._key = key
        self._priority = priority
        self._limits = limits or Limits()
        self._hedger = hedger or Hedger()
        self._watchdog: Watchdog | None = None
        self._most = 1
        self._lost = False
        self._over = asyncio.Event()
        self._closed = False

    async def run_protocol_task(self, prompt: str, tensor: ArrayLike) -> AsyncGenerator[TokenIds, None]:
        """Generate after `tensor` (token ids, one-dimensional), whose text is `prompt`, with default sampling.

        Yields one-dimensional int32 arrays of new token ids as they come; `tensor` is copied, never written to.
        Raises as `run` does.
        """
        async with aclosing(self.generate(tensor, text=prompt)) as deltas:
            async for delta in deltas:
                if delta.tokens:
                    yield np.array(delta.tokens, np.int32)

    async def generate(
        self, prompt: ArrayLike, sampling: Sampling | None = None, *, choices: int = 1, text: str | None = None
    ) -> AsyncGenerator[Delta, None]:
        """As `run`, with deltas to iterate over. Closing the generator cancels the work on the node."""
        push = partial(self.run, prompt, sampling, choices=choices, text=text)
        async with aclosing(pulled(push)) as deltas:
            async for delta in deltas:
                yield delta
                if self._closed:
                    raise SessionClosed("the session was closed")

    async def run(
        self,
        prompt: ArrayLike,
        sampling: Sampling | None,
        emit: Emit,
        *,
        choices: int = 1,
        text: str | None = None,
    ) -> None:
        """Generate `choices` answers to `prompt` (token ids, one-dimensional), whose text is `text`.

        Calls `emit` with each delta as it comes, between two steps of the event loop; each choice ends with one that
        has a finish_reason. Cancelling the call cancels the work on the node, and so does an error that `emit` raises,
        which is raised here; a NodeError of its own would pass for one of the node.

        Raises InvalidRequest and ContextLengthExceeded for what no node can do, NoNodeAvailable or the last
        NodeError when attempts are spent, SessionClosed when the session is closed meanwhile.
        """
        if self._closed or self._watchdog is not None:
            raise SessionClosed("the session is closed" if self._closed else "the session runs a generation already")
        sampling = sampling or Sampling()
        check_sampling(sampling, choices)
        ledger = self.ledger = Ledger(self._model, checked_prompt(prompt), sampling, choices, text)
        check_travels(ledger)
        self._watchdog = Watchdog()
        self._over.clear()
        try:
            await self._run(ledger, emit, self._watchdog)
        finally:
            self._watchdog.close()
            self._watchdog = None
            self._over.set()
            self._manager.line.stir(self._model)

    async def close(self) -> None:
        """End what runs. Safe to call twice."""
        self._closed = True
        if self._watchdog is not None and self._watchdog.interrupt(SessionClosed("the session was closed")):
            await self._over.wait()

    async def _run(self, ledger: Ledger, emit: Emit, watchdog: Watchdog) -> None:
        retry = Retry(self._limits)
        place = self._manager.line.place(self._model, self._priority)
        self._most = len(ledger.choices)
        while ledger.unfinished:
            first = self._attempt(await self._lease(ledger, retry, watchdog, place), ledger)
            round_ = Round(first, ledger, watchdog, self._limits, emit)
            delivered, self._lost = ledger.delivered, True
            try:
                await self._play(round_, ledger)
            except Diverged:
                round_.attempt.lease.abandoned()
                if ledger.diverged:
                    raise
                ledger.diverged = True
            except NodeError as error:
                lease = round_.attempt.lease
                lease.failed(error)
                if isinstance(error, NodeBusy):
                    self._most = max(1, len(round_.attempt.choices) // 2)
                if ledger.delivered > delivered:
                    retry.progressed()
                await watchdog.wait(asyncio.sleep(retry.failed(error, lease.remote.peer)))
            except BaseException:
                # The client's mistake, or its leaving: only what was delivered speaks of the node.
                if ledger.delivered > delivered:
                    round_.attempt.lease.succeeded()
                else:
                    round_.attempt.lease.abandoned()
                raise
            else:
                round_.attempt.lease.succeeded()
                retry.progressed()
                self._lost = False
            for delta in ledger.close_full():
                emit(delta)

    async def _play(self, round_: Round, ledger: Ledger) -> None:
        if ledger.delivered:
            return await round_.run()
        started = monotonic()
        round_.on_answer = lambda: self._hedger.answered(monotonic() - started)
        return await round_.run(self._hedger.delay(), lambda: self._second(round_.attempt, ledger))

    def _attempt(self, lease: Lease, ledger: Ledger) -> Attempt:
        """Of as many choices as the node has slots, at most: the others are asked for when these are complete. Raises
        Diverged where no node can carry the answer on.
        """
        try:
            attempt = Attempt(lease, ledger, self._authorizer, min(self._most, lease.remote.capacity))
        except Diverged:
            lease.abandoned()
            raise
        if self._lost or ledger.peers[-1:] != [lease.remote.peer]:
            ledger.peers.append(lease.remote.peer)
            ledger.nodes.append(lease.remote.name)
        return attempt

    async def _lease(self, ledger: Ledger, retry: Retry, watchdog: Watchdog, place: Place) -> Lease:
        want = Want(ledger.prompt, self._key)
        with place:
            while True:
                try:
                    place.check()
                    return self._manager.lease(self._model, retry.excluded, want)
                except (NoNodeAvailable, NodeBusy) as error:
                    pause = retry.waited(error)
                await watchdog.wait(place.wait(pause))

    def _second(self, first: Attempt, ledger: Ledger) -> Attempt | None:
        """Another node for the same, where there is one, and asking it is not too often."""
        peer = first.lease.remote.peer
        if self._manager.line.waits(self._model):
            return None
        try:
            lease = self._manager.lease(self._model, [peer], Want(ledger.prompt, self._key))
        except (NoNodeAvailable, NodeBusy):
            return None
        if lease.remote.peer == peer or not self._hedger.spend():
            lease.abandoned()
            return None
        return self._attempt(lease, ledger)
