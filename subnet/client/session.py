"""One stateful generation over nodes that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

import numpy as np
from numpy.typing import ArrayLike

from subnet.authorizers import AuthorizerBase
from subnet.client.attempt import Attempt
from subnet.client.checks import check_sampling, check_travels, checked_prompt
from subnet.client.hedge import EndedEarly, Hedger, first_delta, race
from subnet.client.lease import Lease
from subnet.client.ledger import Ledger
from subnet.client.limits import Limits
from subnet.client.policies import Want
from subnet.client.remote_manager import RemoteManager
from subnet.client.resume import Diverged
from subnet.client.retry import Retry
from subnet.client.watchdog import Watchdog
from subnet.errors import NodeBusy, NodeError, NoNodeAvailable, SessionClosed
from subnet.generation import Delta, Sampling
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
        hedger: Hedger | None = None,
    ) -> None:
        self.ledger: Ledger | None = None
        self._manager = remote_manager
        self._authorizer = authorizer or remote_manager.authorizer
        self._model = model
        self._key = key
        self._limits = limits or Limits()
        self._hedger = hedger or Hedger()
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
            tries = [self._attempt(await self._lease(ledger, retry, watchdog), ledger)]
            delivered = ledger.delivered
            try:
                async with aclosing(self._deltas(tries, ledger, watchdog)) as deltas:
                    async for delta in deltas:
                        retry.progressed()
                        yield delta
            except Diverged:
                tries[0].lease.abandoned()
                if ledger.diverged:
                    raise
                ledger.diverged = True
            except NodeError as error:
                lease = tries[0].lease
                lease.failed(error)
                await watchdog.wait(asyncio.sleep(retry.failed(error, lease.remote.peer)))
            except BaseException:
                # The client's mistake, or its leaving: only what was delivered speaks of the node.
                if ledger.delivered > delivered:
                    tries[0].lease.succeeded()
                else:
                    tries[0].lease.abandoned()
                raise
            else:
                tries[0].lease.succeeded()
            for delta in ledger.close_full():
                yield delta

    def _attempt(self, lease: Lease, ledger: Ledger) -> Attempt:
        ledger.peers.append(lease.remote.peer)
        ledger.nodes.append(lease.remote.name)
        return Attempt(lease, ledger, self._authorizer)

    async def _lease(self, ledger: Ledger, retry: Retry, watchdog: Watchdog) -> Lease:
        want = Want(ledger.prompt, self._key)
        while True:
            try:
                return self._manager.lease(self._model, retry.excluded, want)
            except (NoNodeAvailable, NodeBusy) as error:
                pause = retry.waited(error)
            await watchdog.wait(asyncio.sleep(pause))

    async def _deltas(self, tries: list[Attempt], ledger: Ledger, watchdog: Watchdog) -> AsyncGenerator[Delta, None]:
        """What is new of the attempt in `tries`, or of the one that took its place there."""
        within = self._limits.first_token_within(len(ledger.prompt) + ledger.delivered)
        try:
            stream, received = await watchdog.wait(self._first(tries, ledger, within))
        except TimeoutError:
            raise tries[0].late(first=True, within=within) from None
        except EndedEarly:
            raise tries[0].ended() from None
        attempt, within = tries[0], self._limits.stall
        attempt.lease.answered()
        async with aclosing(stream):
            while True:
                if received.tokens or received.finish_reason is not None:
                    delta = attempt.new(received)
                    if delta is not None:
                        ledger.record(delta)
                        yield delta
                if not ledger.unfinished:
                    return
                try:
                    received = await watchdog.wait(anext(stream), within)
                except TimeoutError:
                    raise attempt.late(first=False, within=within) from None
                except StopAsyncIteration:
                    raise attempt.ended() from None

    async def _first(
        self, tries: list[Attempt], ledger: Ledger, within: float
    ) -> tuple[AsyncGenerator[Delta, None], Delta]:
        """The stream to go on with, and its first delta; of a second node when the first was later than usual."""
        fresh, started = not ledger.delivered, monotonic()
        delay = self._hedger.delay() if fresh else None
        stream = tries[0].stream()
        try:
            if delay is None:
                winner, delta = stream, await first_delta(stream, within)
            else:
                winner, delta = await race(stream, delay, lambda: self._second(tries, ledger), within)
        except BaseException:
            await stream.aclose()
            _keep(tries, 0)
            raise
        _keep(tries, 0 if winner is stream else 1)
        if fresh:
            self._hedger.answered(monotonic() - started)
        return winner, delta

    def _second(self, tries: list[Attempt], ledger: Ledger) -> AsyncGenerator[Delta, None] | None:
        """The stream of another node for the same, where there is one, and asking it is not too often."""
        first = tries[0].lease.remote.peer
        try:
            lease = self._manager.lease(self._model, [first], Want(ledger.prompt, self._key))
        except (NoNodeAvailable, NodeBusy):
            return None
        if lease.remote.peer == first or not self._hedger.spend():
            lease.abandoned()
            return None
        tries.append(self._attempt(lease, ledger))
        return tries[1].stream()


def _keep(tries: list[Attempt], number: int) -> None:
    """Let go of all but one."""
    for attempt in tries[:number] + tries[number + 1 :]:
        attempt.lease.abandoned()
    tries[:] = [tries[number]]
