"""Events -> a whole answer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET

from adapter.api.chat.message_types import CalledFunction, ToolCall
from adapter.api.chat.response import AnswerMessage, ChatCompletion, Choice
from adapter.api.chat.stream import ReasoningField, reasoning_fields
from adapter.api.common.head import Head
from adapter.api.common.logprob_types import Logprobs
from adapter.decode.events import (
    CallArguments,
    CallStarted,
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Used,
)
from adapter.decode.token_logprobs import TokenLogprob


class Collector:
    """Takes the events of one answer."""

    def __init__(
        self,
        *,
        choices: int = 1,
        reasoning: ReasoningField = "reasoning_content",
    ) -> None:
        self._count = choices
        self._reasoning: ReasoningField = reasoning
        self.begin()

    def begin(self) -> Callable[[Event], None]:
        """Forget what was taken; gives `take`."""
        self._choices = [_Collected(index, self._reasoning) for index in range(self._count)]
        self._used: Used | None = None
        return self.take

    def take(self, event: Event) -> None:
        if isinstance(event, Used):
            self._used = event
        else:
            self._choices[event.choice].take(event)

    def whole(self, head: Head, *, prompt_token_ids: list[int] | None = None) -> ChatCompletion:
        """Once the last event was taken."""
        assert self._used is not None
        return ChatCompletion(
            choices=[choice.whole() for choice in self._choices],
            usage=self._used.usage,
            prompt_token_ids=UNSET if prompt_token_ids is None else prompt_token_ids,
            **msgspec.structs.asdict(head),
        )


class _Collected:
    """One choice."""

    def __init__(self, index: int, reasoning: ReasoningField) -> None:
        self._index = index
        self._field = reasoning
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._refusals: list[str] = []
        self._calls: list[tuple[CallStarted, list[str]]] = []
        self._logprobs: list[TokenLogprob] | None = None
        self._ids: list[int] | None = None
        self._reason: FinishReason = "stop"

    def take(self, event: Event) -> None:
        match event:
            case TextDelta():
                self._texts.append(event.text)
                if event.logprobs is not None:
                    self._logprobs = (self._logprobs or []) + event.logprobs
                if event.token_ids is not None:
                    self._ids = (self._ids or []) + event.token_ids
            case ReasoningDelta():
                self._thoughts.append(event.text)
            case RefusalDelta():
                self._refusals.append(event.text)
            case CallStarted():
                self._calls.append((event, []))
            case CallArguments():
                self._calls[event.index][1].append(event.text)
            case Finished():
                self._reason = event.reason

    def whole(self) -> Choice:
        calls = [
            ToolCall(id=call.id, function=CalledFunction(name=call.name, arguments="".join(said)))
            for call, said in self._calls
        ]
        text, thought = "".join(self._texts), "".join(self._thoughts)
        message = AnswerMessage(
            content=None if (calls or self._refusals) and not text else text,
            refusal="".join(self._refusals) or None,
            tool_calls=calls or UNSET,
            **(reasoning_fields(thought, self._field) if thought else {}),
        )
        return Choice(
            index=self._index,
            message=message,
            logprobs=None if self._logprobs is None else Logprobs(content=self._logprobs),
            finish_reason=self._reason,
            token_ids=UNSET if self._ids is None else self._ids,
        )
