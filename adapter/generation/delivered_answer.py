"""What a client has received of an answer, so that another model can take over if it says the same."""

from __future__ import annotations

from collections.abc import Callable
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
from adapter.decode.usage import Usage
from subnet.aio import Sink

_Texts = TextDelta | ReasoningDelta | RefusalDelta | CallArguments


class AnswerDiffersError(Exception):
    """A model's answer differs from what was delivered of another's."""


class DeliveredAnswer:
    """Record of the events passed to `emit`. `started` is True once there was one, and `resumable` as long as all of
    them can be compared.
    """

    def __init__(self, emit: Sink[Event]) -> None:
        self.started = False
        self.resumable = True
        self._emit = emit
        self._texts: dict[tuple[object, ...], list[str]] = {}
        self._calls: dict[tuple[int, int], tuple[str, dict[str, Any] | None]] = {}
        self._logprobs: dict[int, int] = {}
        self._token_ids: dict[int, int] = {}
        self._finished: dict[int, str] = {}
        self._lists: dict[str, list[Any]] = {}

    def receive(self, event: Event) -> None:
        """Record an event, and pass it on."""
        self.started = True
        match event:
            case TextDelta():
                self._text(event).append(event.text)
                self._logprobs[event.choice] = self._logprobs.get(event.choice, 0) + len(event.logprobs or ())
                self._token_ids[event.choice] = self._token_ids.get(event.choice, 0) + len(event.token_ids or ())
            case ReasoningDelta() | RefusalDelta() | CallArguments():
                self._text(event).append(event.text)
            case CallStarted():
                self._calls[event.choice, event.index] = event.name, event.extra
            case Finished():
                self._finished[event.choice] = event.reason
            case CallExtra():
                self.resumable = False
            case Extra():
                self.resumable = self.resumable and not event.message
            case ResponseExtra():
                self._lists |= {name: value for name, value in event.fields.items() if isinstance(value, list)}
        self._emit(event)

    def resume(self, nodes: Callable[[], tuple[str, ...]], tokens: int) -> Sink[Event]:
        """Return a sink for the events of the same answer by another model, which passes on those that are new.

        For the last event, `nodes` returns the nodes of the whole answer, and `tokens` are those delivered so far. The
        sink raises AnswerDiffersError before anything else than the delivered answer is passed on.
        """
        return _Resumption(self, nodes, tokens).receive

    @property
    def plain_text(self) -> str:
        """Text of an answer that another model can continue: of one choice, and nothing but text. Otherwise empty."""
        place = (TextDelta, 0, None)
        is_plain = self._texts.keys() == {place} and not (self._calls or self._finished)
        has_tokens = any(self._logprobs.values()) or any(self._token_ids.values())
        return "".join(self._texts[place]) if is_plain and self.resumable and not has_tokens else ""

    def continued(self, nodes: Callable[[], tuple[str, ...]], tokens: int, model: str) -> Sink[Event]:
        """Return a sink for the events of `model`, which continues the answer. The arguments are as for `resume`."""

        def receive(event: Event) -> None:
            if isinstance(event, Used):
                usage = usage_of_continuation(event.usage, tokens)
                event = msgspec.structs.replace(event, usage=usage, nodes=nodes(), continued_by=model, extra=None)
            self.receive(event)

        return receive

    def _text(self, event: _Texts) -> list[str]:
        return self._texts.setdefault(_place(event), [])


class _Resumption:
    """Comparison of an answer with the delivered one, and the position up to which it was repeated."""

    def __init__(self, delivered: DeliveredAnswer, nodes: Callable[[], tuple[str, ...]], tokens: int) -> None:
        self._delivered = delivered
        self._expected = {place: "".join(parts) for place, parts in delivered._texts.items()}
        self._repeated = dict.fromkeys(self._expected, 0)
        self._calls = dict(delivered._calls)
        self._finished = dict(delivered._finished)
        self._closed = frozenset(delivered._finished)
        self._logprobs = dict(delivered._logprobs)
        self._token_ids = dict(delivered._token_ids)
        self._nodes = nodes
        self._tokens = tokens
        self._response_extra: dict[str, Any] = {}
        # Such as the citations to which the text refers.
        self._lists = dict(delivered._lists)

    def receive(self, event: Event) -> None:
        match event:
            case TextDelta() | ReasoningDelta() | RefusalDelta() | CallArguments():
                self._receive_text(event)
            case CallStarted():
                delivered = self._calls.pop((event.choice, event.index), None)
                if delivered is None:
                    self._pass_on(event)
                elif delivered != (event.name, event.extra):
                    raise AnswerDiffersError
            case CallExtra():
                self._pass_on(event)
            case Finished():
                self._finish(event)
            case Extra():
                # What a repeated part of the answer had of them is not needed again.
                if event.choice not in self._closed and not self._is_incomplete(event.choice):
                    self._pass_on(event)
            case ResponseExtra():
                self._response_extra |= event.fields
            case Used():
                nodes, replayed = self._nodes(), event.replayed + self._tokens
                # Other members of its usage are about the last part of the answer only.
                self._pass_on(msgspec.structs.replace(event, nodes=nodes, replayed=replayed, extra=None))

    def _receive_text(self, event: _Texts) -> None:
        place = _place(event)
        expected, position = self._expected.get(place, ""), self._repeated.get(place, 0)
        skip = min(len(expected) - position, len(event.text))
        if not expected.startswith(event.text[:skip], position):
            raise AnswerDiffersError
        self._repeated[place] = position + skip
        new: _Texts = msgspec.structs.replace(event, text=event.text[skip:])
        if isinstance(new, TextDelta):
            new = self._without_delivered_tokens(new)
            if new.text or new.logprobs or new.token_ids:
                self._pass_on(new)
        elif new.text:
            self._pass_on(new)

    def _without_delivered_tokens(self, event: TextDelta) -> TextDelta:
        logprobs, offsets = event.logprobs, event.offsets
        if logprobs is not None:
            skip = _take(self._logprobs, event.choice, len(logprobs))
            logprobs, offsets = logprobs[skip:], None if offsets is None else offsets[skip:]
        ids = event.token_ids
        if ids is not None:
            ids = ids[_take(self._token_ids, event.choice, len(ids)) :]
        return msgspec.structs.replace(event, logprobs=logprobs, offsets=offsets, token_ids=ids)

    def _finish(self, event: Finished) -> None:
        reason = self._finished.pop(event.choice, None)
        if reason is None:
            self._pass_on(event)
        elif reason != event.reason:
            raise AnswerDiffersError

    def _pass_on(self, event: Event) -> None:
        """Pass on an event of a choice of which everything delivered was repeated, and not its end."""
        if not isinstance(event, Used) and (event.choice in self._closed or self._is_incomplete(event.choice)):
            raise AnswerDiffersError
        if self._response_extra and not isinstance(event, Used):
            extra, self._response_extra = self._response_extra, {}
            if any(extra.get(name, value) != value for name, value in self._lists.items()):
                raise AnswerDiffersError
            self._lists.clear()
            self._delivered.receive(ResponseExtra(event.choice, extra))
        self._delivered.receive(event)

    def _is_incomplete(self, choice: int) -> bool:
        missing_text = any(
            self._repeated[place] < len(text) for place, text in self._expected.items() if place[1] == choice
        )
        return missing_text or any(number == choice for number, _ in self._calls)


def usage_of_continuation(usage: Usage, tokens: int) -> Usage:
    """Return the usage of a whole answer of which `tokens` tokens were part of the prompt."""
    prompt, completion = max(0, usage.prompt_tokens - tokens), usage.completion_tokens + tokens
    return msgspec.structs.replace(
        usage, prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def _place(event: _Texts) -> tuple[object, ...]:
    """Return what the text of an event belongs to: its kind, its choice and the index of its call."""
    return type(event), event.choice, event.index if isinstance(event, CallArguments) else None


def _take(counts: dict[int, int], choice: int, available: int) -> int:
    """Reduce the count of `choice` by up to `available`; return by how much."""
    taken = min(counts.get(choice, 0), available)
    counts[choice] = counts.get(choice, 0) - taken
    return taken
