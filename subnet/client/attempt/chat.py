"""An attempt on the chat lane."""

from __future__ import annotations

import msgspec

from subnet.aio import gather_or_cancel
from subnet.chat import ChatDelta, ChatRequest, EmitChat
from subnet.client.attempt.base import Attempt
from subnet.client.ledger.chat import ChatChoice, ChatLedger
from subnet.client.resume.chat import Replay, way
from subnet.pool.lease import Lease


class ChatAttempt(Attempt[ChatDelta]):
    """For what `ledger` lacks when this is made, of at most `most` choices, save that a replay is of all. Raises
    Diverged where the node cannot carry the answer on.
    """

    settings_prefix = "chat_"

    def __init__(self, lease: Lease, ledger: ChatLedger, most: int) -> None:
        self.choices: list[ChatChoice]
        self.lease = lease
        self._ledger = ledger
        self._way = way(ledger, lease.remote.supports_prefill)
        self.filters = self._way == "replay"
        self.choices = ledger.unfinished if self.filters else ledger.unfinished[:most]
        self._replays = {choice.index: Replay(choice) for choice in self.choices} if self.filters else {}

    async def run(self, emit: EmitChat) -> None:
        await gather_or_cancel([self._ask(request, emit) for request in self._requests()])

    def new(self, delta: ChatDelta) -> ChatDelta | None:
        replay = self._replays.get(delta.choice)
        return None if replay is None else replay.rest(delta)

    def _requests(self) -> list[ChatRequest]:
        request, begun = self._ledger.request, [choice for choice in self.choices if choice.tokens]
        if self._way == "replay":
            return [request]
        fresh = tuple(choice.index for choice in self.choices if not choice.tokens)
        rest = [msgspec.structs.replace(request, choices=fresh)] if fresh else []
        return [*rest, *(self._prefilled(choice) for choice in begun)]

    def _prefilled(self, choice: ChatChoice) -> ChatRequest:
        request = self._ledger.request
        body = dict(request.body)
        for name in ("max_tokens", "max_completion_tokens"):
            if body.get(name) is not None:
                body[name] = max(1, body[name] - choice.tokens)
        return ChatRequest(model=request.model, body=body, choices=(choice.index,), begun="".join(choice.text))

    async def _ask(self, request: ChatRequest, emit: EmitChat) -> None:
        before = [self._ledger.choices[index].tokens if request.begun else 0 for index in request.choices]
        usage = await self.lease.remote.protocol.rpc_chat(request, emit)
        if usage is not None:
            self._ledger.settle(request, usage, before)
