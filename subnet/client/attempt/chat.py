"""Attempt on the chat lane."""

from __future__ import annotations

from typing import Any

import msgspec

from subnet.aio import Sink, gather_or_cancel
from subnet.chat import ChatDelta, ChatRequest
from subnet.client.attempt.base import Attempt
from subnet.client.ledger.chat import ChatChoice, ChatLedger
from subnet.client.ledger.token_limits import with_remaining_tokens
from subnet.client.resume.chat import Replay, choose_strategy
from subnet.client.resume.token import Diverged
from subnet.pool.lease import Lease


class ChatAttempt(Attempt[ChatDelta]):
    """Attempt to generate the unfinished choices of `ledger`, at most `max_choices`, except that a replay has all.

    Raises Diverged if the node can neither repeat nor continue the answer.
    """

    settings_prefix = "chat_"

    def __init__(self, lease: Lease, ledger: ChatLedger, max_choices: int) -> None:
        self.choices: list[ChatChoice]
        self.lease = lease
        self._ledger = ledger
        capabilities = lease.remote.capabilities
        if ledger.request.prefix and not ledger.can_continue(capabilities):
            raise Diverged("the node cannot continue an answer")
        self._strategy = choose_strategy(ledger, capabilities)
        if self._strategy == "restart":
            ledger.has_own_seed = capabilities.seeds
        self.is_replay = self._strategy == "replay"
        self.choices = ledger.unfinished if self.is_replay else ledger.unfinished[:max_choices]
        self._replays = {choice.index: Replay(choice) for choice in self.choices} if self.is_replay else {}
        self._response_extra: dict[str, Any] = {}

    async def run(self, emit: Sink[ChatDelta]) -> None:
        await gather_or_cancel([self._send(request, emit) for request in self._requests()])

    def skip_delivered(self, delta: ChatDelta) -> ChatDelta | None:
        replay = self._replays.get(delta.choice)
        new = None if replay is None else replay.skip_delivered(delta)
        if delta.response_extra:
            self._response_extra |= delta.response_extra
        if new is not None and self._response_extra:
            self._check_lists()
            # With those of the skipped part: the node that was lost may not have sent them.
            new.response_extra, self._response_extra = self._response_extra, {}
        self._ledger.replayed_tokens += delta.tokens - (0 if new is None else new.tokens)
        return new

    def _check_lists(self) -> None:
        """Raise Diverged if a list that belongs to the answer, such as its citations, is not the one delivered."""
        for choice in self._ledger.choices:
            for name, value in choice.lists.items():
                if self._response_extra.get(name, value) != value:
                    raise Diverged(f"the replayed answer has another value of '{name[:64]}' than was delivered")

    def _requests(self) -> list[ChatRequest]:
        request, started = self._ledger.request, [choice for choice in self.choices if choice.tokens]
        if self.is_replay:
            return [request]
        not_started = tuple(choice.index for choice in self.choices if not choice.tokens)
        requests = [msgspec.structs.replace(request, choices=not_started)] if not_started else []
        return [*requests, *(self._prefill_request(choice) for choice in started)]

    def _prefill_request(self, choice: ChatChoice) -> ChatRequest:
        request = self._ledger.request
        body = with_remaining_tokens(request.body, choice.tokens)
        prefix = request.prefix + "".join(choice.text)
        return msgspec.structs.replace(request, body=body, choices=(choice.index,), prefix=prefix)

    async def _send(self, request: ChatRequest, emit: Sink[ChatDelta]) -> None:
        prefix_tokens = [self._ledger.choices[index].tokens if request.prefix else 0 for index in request.choices]
        usage = await self.lease.remote.protocol.rpc_chat(request, emit)
        if usage is not None:
            self._ledger.record_usage(request, usage, prefix_tokens, is_resumed=self._strategy != "restart")
