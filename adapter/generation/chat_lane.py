"""Generation on the chat lane: request -> session -> chat deltas -> events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from adapter.decode.events import (
    CallArguments,
    CallExtra,
    CallStarted,
    Event,
    Extra,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    ResponseExtra,
    TextDelta,
    Used,
)
from adapter.decode.token_logprobs import TokenLogprob
from adapter.decode.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from adapter.errors import BadRequest
from adapter.generation.base import Generation
from adapter.generation.model_registry import fingerprint
from subnet import RequestState, Session, SessionManager
from subnet.chat import ChatDelta, ChatRequest, ChatText, Endpoint
from subnet.client.ledger.chat import ChatLedger
from subnet.client.ledger.token_limits import token_limit, with_remaining_tokens, with_token_limit
from subnet.errors import ContextLengthExceeded, InvalidRequest
from subnet.node_info import ModelCard

# Parameters that the gateway or the protocol handles, so they are not passed on.
_NOT_FORWARDED = frozenset({"model", "n", "stream", "stream_options", "priority"})
# Refusals of one request after which it is repeated: of more than the model may write, then more than has room.
_MAX_REFUSALS = 2


class ChatGeneration(Generation):
    """Generation by a server that accepts only messages and text.

    `body` is that of a request to `endpoint`, of `size` bytes, for text completions with one prompt. Except for what
    the gateway itself needs it is passed on as it is: the server judges it. Raises BadRequest for what no such server
    supports. `first` is the index of the first choice. `prefix` is the beginning of the only choice, of `prefix_tokens`
    tokens, which the server is to continue.

    With `bound`, a request that the server refuses for its maximum of new tokens is repeated with a lower one; `limit`
    is lower from the beginning.
    """

    def __init__(
        self,
        card: ModelCard,
        body: Mapping[str, Any],
        *,
        endpoint: Endpoint = "chat/completions",
        size: int = 0,
        choices: int = 1,
        first: int = 0,
        key: str | None = None,
        priority: int = 0,
        prefix: str = "",
        prefix_tokens: int = 0,
        bound: bool = False,
        limit: int | None = None,
    ) -> None:
        if body.get("return_token_ids"):
            message = f"Unsupported parameter: 'return_token_ids' is not supported with the model '{card.id}'."
            raise BadRequest(message, param="return_token_ids", code="unsupported_parameter")
        self._card = card
        self._key = key
        self._priority = priority
        forwarded = {name: value for name, value in body.items() if value is not None and name not in _NOT_FORWARDED}
        self._bound = bound
        self._bounded_tokens: int | None = None
        if limit is not None:
            forwarded = self._lower_limit(forwarded, limit)
        self._room = _room(card, forwarded)
        if bound and self._room is not None:
            forwarded = self._lower_limit(forwarded, self._room)
        if prefix:
            forwarded = with_remaining_tokens(forwarded, prefix_tokens)
        self._request = ChatRequest(
            model=card.id,
            body=forwarded,
            endpoint=endpoint,
            choices=tuple(range(choices)),
            prefix=prefix,
            size=size,
        )
        self._first = first
        self._session: Session | None = None
        self._call_counts = [0] * choices

    @property
    def fingerprint(self) -> str:
        return fingerprint(self._card)

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def room(self) -> int | None:
        return self._room

    @property
    def bounded_tokens(self) -> int | None:
        return self._bounded_tokens

    def may_bound(self, error: Exception) -> bool:
        """Return whether the server may accept the request with fewer new tokens after `error`.

        Text completions have a default of 16, so that they need a maximum that is known.
        """
        limit = token_limit(self._request.body)
        if limit is None or not isinstance(error, ContextLengthExceeded | InvalidRequest):
            return False
        if error.room is None:
            return isinstance(error, ContextLengthExceeded) and self._request.endpoint == "chat/completions"
        return 0 < error.room < limit

    def _lower_limit(self, body: dict[str, Any], limit: int | None) -> dict[str, Any]:
        """Return `body` with this maximum of new tokens, if it is lower than its own. None: without any."""
        before = token_limit(body)
        if before is None or (limit is not None and limit >= before):
            return body
        self._bounded_tokens = limit or 0
        return with_token_limit(body, limit)

    @property
    def usage(self) -> Usage:
        usage = ChatLedger(self._request).usage if self.ledger is None else self.ledger.usage
        return Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
            completion_tokens_details=CompletionTokensDetails(usage.reasoning_tokens),
        )

    @property
    def ledger(self) -> ChatLedger | None:
        ledger = None if self._session is None else self._session.ledger
        return ledger if isinstance(ledger, ChatLedger) else None

    async def run(
        self, sessions: SessionManager, emit: Callable[[Event], None], state: RequestState | None = None
    ) -> None:
        def receive(delta: ChatDelta) -> None:
            if type(delta) is ChatText:
                emit(TextDelta(self._first + delta.choice, delta.text))
                return
            for event in self._events(delta):
                emit(event)

        name = self._card.id
        async with sessions.session(name, key=self._key, priority=self._priority, state=state) as self._session:
            with deep_bodies_refused():
                await self._chat(self._session, receive)
        ledger = self.ledger
        assert ledger is not None
        nodes, extra = tuple(ledger.nodes), ledger.usage.extra
        emit(Used(self.usage, nodes, ledger.replayed_tokens, diverged=ledger.diverged, extra=extra))

    async def _chat(self, session: Session, receive: Callable[[ChatDelta], None]) -> None:
        """Generate the answer, with fewer new tokens if the server refuses so many. Raises its first refusal."""
        refusals: list[ContextLengthExceeded | InvalidRequest] = []
        try:
            while True:
                try:
                    await session.chat(self._request, receive)
                    return
                except (ContextLengthExceeded, InvalidRequest) as error:
                    refusals.append(error)
                    if not self._bound or len(refusals) > _MAX_REFUSALS or not self.may_bound(error):
                        raise refusals[0] from None
                    body = self._lower_limit(self._request.body, error.room)
                    self._request = msgspec.structs.replace(self._request, body=body)
        finally:
            # Their tracebacks refer to this frame: a cycle.
            refusals.clear()

    def _events(self, delta: ChatDelta) -> Iterator[Event]:
        choice = self._first + delta.choice
        if delta.response_extra:
            yield ResponseExtra(choice, delta.response_extra)
        if delta.reasoning:
            yield ReasoningDelta(choice, delta.reasoning)
        if delta.text or delta.logprobs:
            yield _text_delta(choice, delta)
        if delta.refusal:
            yield RefusalDelta(choice, delta.refusal)
        for call in delta.calls:
            if call.index == self._call_counts[delta.choice]:
                self._call_counts[delta.choice] += 1
                yield CallStarted(choice, call.index, call.id, call.name, call.extra)
            elif call.extra:
                yield CallExtra(choice, call.index, call.extra)
            if call.arguments:
                yield CallArguments(choice, call.index, call.arguments)
        if delta.extra or delta.choice_extra:
            yield Extra(choice, delta.extra or {}, delta.choice_extra or {})
        if delta.finish_reason is not None:
            yield Finished(choice, delta.finish_reason)


@contextmanager
def deep_bodies_refused() -> Iterator[None]:
    """Raise BadRequest for a request that is nested too deeply to be encoded again, though it could be decoded."""
    try:
        yield
    except RecursionError as error:
        message = "We could not parse the JSON body of your request: it is nested too deeply."
        raise BadRequest(message, code="invalid_json") from error


def _room(card: ModelCard, body: Mapping[str, Any]) -> int | None:
    """Return the number of new tokens that the context has room for at best, if `body` has a higher maximum."""
    limit, room = token_limit(body), card.context_length - 1
    return room if limit is not None and 0 < room < limit else None


def _text_delta(choice: int, delta: ChatDelta) -> TextDelta:
    if delta.logprobs is None:
        return TextDelta(choice, delta.text)
    logprobs = msgspec.convert(delta.logprobs, list[TokenLogprob])
    offsets = [entry["text_offset"] for entry in delta.logprobs if "text_offset" in entry]
    return TextDelta(choice, delta.text, logprobs, offsets=offsets or None)
