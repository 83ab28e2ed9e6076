"""How a client gets what its ledger promises, through as many nodes as that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Generic

from subnet.client.attempt.base import Attempt
from subnet.client.deadline import IdleDeadline
from subnet.client.ledger.base import D, Ledger, Take
from subnet.client.race import Hedger, Round
from subnet.client.resume.token import Diverged
from subnet.client.retry import Retry
from subnet.client.timeouts import Limits
from subnet.errors import NodeBusy, NodeError, NoNodeAvailable
from subnet.pool.lease import Lease
from subnet.pool.manager import RemoteManager
from subnet.pool.wait_queue import Ticket

Try = Callable[[Lease, int], Attempt[D]]
"""Makes an attempt, of at most so many choices. Raises Diverged where no node can carry the answer on."""


class Delivery(Generic[D]):
    """Of what `ledger` promises, to `emit`. `attempt` makes its attempts."""

    def __init__(
        self,
        ledger: Ledger[D],
        attempt: Try[D],
        emit: Take[D],
        *,
        manager: RemoteManager,
        limits: Limits,
        hedger: Hedger,
        deadline: IdleDeadline,
        may_queue: Callable[[], bool] = lambda: True,
    ) -> None:
        self._ledger = ledger
        self._try = attempt
        self._emit = emit
        self._manager = manager
        self._limits = limits
        self._hedger = hedger
        self._deadline = deadline
        self._retry = Retry(limits, may_queue=may_queue)
        self._most = len(ledger.choices)
        self._lost = False

    async def run(self, priority: int) -> None:
        """Until every choice is complete. Raises RequestError, NoNodeAvailable or the last NodeError when attempts are
        spent, and what `emit` raises.
        """
        ticket = self._manager.wait_queue.ticket(self._ledger.model, priority)
        try:
            while not self._ledger.complete:
                lease = await self._lease(ticket)
                await self._play(self._attempt(lease))
                for delta in self._ledger.close_full():
                    self._emit(delta)
        finally:
            self._retry.over()

    async def _play(self, first: Attempt[D]) -> None:
        """One round; of its failures those are raised that are the last."""
        ledger, retry = self._ledger, self._retry
        round_ = Round(first, ledger, self._deadline, self._limits.on(first.lease.remote, ledger.lane), self._emit)
        delivered, self._lost = ledger.delivered, True
        try:
            await self._race(round_)
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
                self._keep_model(lease)
            await self._deadline.wait(asyncio.sleep(retry.failed(error, lease.remote.peer)))
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

    def _keep_model(self, lease: Lease) -> None:
        """An answer that one model began is continued by no other, also where the session did not name one."""
        if self._ledger.model is None and lease.remote.info is not None:
            card = lease.remote.info.card(None)
            self._ledger.model = card.id if card is not None else None

    async def _race(self, round_: Round[D]) -> None:
        if self._ledger.delivered:
            return await round_.run()
        started = monotonic()
        round_.on_answer = lambda: self._hedger.answered(monotonic() - started)
        return await round_.run(self._hedger.delay(), lambda: self._second(round_.attempt))

    def _attempt(self, lease: Lease) -> Attempt[D]:
        """Of as many choices as the node has slots, at most: the others are asked for when these are complete."""
        ledger = self._ledger
        try:
            attempt = self._try(lease, min(self._most, lease.remote.capacity))
        except BaseException:
            lease.abandoned()
            raise
        if self._lost or ledger.peers[-1:] != [lease.remote.peer]:
            ledger.peers.append(lease.remote.peer)
            ledger.nodes.append(lease.remote.name)
        return attempt

    async def _lease(self, ticket: Ticket) -> Lease:
        ledger = self._ledger
        with ticket:
            while True:
                try:
                    ticket.check()
                    return self._manager.lease(ledger.model, self._retry.excluded, ledger.want, ledger.lane)
                except (NoNodeAvailable, NodeBusy) as error:
                    pause = self._retry.waited(error)
                await self._deadline.wait(ticket.wait(pause))

    def _second(self, first: Attempt[D]) -> Attempt[D] | None:
        """Another node for the same, where there is one, and asking it is not too often."""
        ledger, peer = self._ledger, first.lease.remote.peer
        if self._manager.wait_queue.has_waiters(ledger.model):
            return None
        try:
            lease = self._manager.lease(ledger.model, [peer], ledger.want, ledger.lane)
        except (NoNodeAvailable, NodeBusy):
            return None
        if lease.remote.peer == peer or not self._hedger.spend():
            lease.abandoned()
            return None
        return self._attempt(lease)
