"""Collector of the events of a chat completion that is not streamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET

from adapter.api.chat.merge import MergedObject
from adapter.api.chat.response import AnswerMessage, ChatCompletion, Choice
from adapter.api.chat.stream import ReasoningField, reasoning_fields
from adapter.api.common.extra import usage_with_extra, with_extra
from adapter.api.common.head import Head
from adapter.api.common.large_json import size_of_choice
from adapter.api.common.logprob_types import Logprobs
from adapter.api.conversation.message_types import CalledFunction, ToolCall
from adapter.decode.events import (
    CallArguments,
    CallExtra,
    CallStarted,
    Event,
    Extra,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    ResponseExtra,
    TextDelta,
    Used,
)
from adapter.decode.token_logprobs import TokenLogprob


class Collector:
    """Builds a ChatCompletion from the events of one answer. `functions`: the request has the older `functions` instead
    of `tools`.
    """

    def __init__(
        self,
        *,
        choices: int = 1,
        reasoning: ReasoningField = "reasoning_content",
        functions: bool = False,
    ) -> None:
        self._count = choices
        self._functions = functions
        self._reasoning: ReasoningField = reasoning
        self.reset()

    def reset(self) -> Callable[[Event], None]:
        """Discard all events received so far, and return `receive`."""
        self._extra: dict[str, Any] = {}
        self._choices = [
            _ChoiceCollector(index, self._reasoning, self._functions, self._extra) for index in range(self._count)
        ]
        self._used: Used | None = None
        return self.receive

    def receive(self, event: Event) -> None:
        if isinstance(event, Used):
            self._used = event
        else:
            self._choices[event.choice].receive(event)

    @property
    def size(self) -> int:
        """Approximate size of the JSON of the chat completion, in bytes."""
        return sum(choice.size for choice in self._choices)

    def build(self, head: Head, *, prompt_token_ids: list[int] | None = None) -> ChatCompletion | dict[str, Any]:
        """Return the chat completion, as a dict if it has members that ChatCompletion does not have; to be called after
        the last event was received.
        """
        assert self._used is not None
        completion = ChatCompletion(
            choices=[choice.build() for choice in self._choices],
            usage=self._used.usage,
            prompt_token_ids=UNSET if prompt_token_ids is None else prompt_token_ids,
            **msgspec.structs.asdict(head),
        )
        if not (self._extra or self._used.extra or any(choice.has_extra for choice in self._choices)):
            return completion
        fields: dict[str, Any] = msgspec.to_builtins(completion) | self._extra
        fields["usage"] = usage_with_extra(self._used)
        for built, choice in zip(fields["choices"], self._choices, strict=True):
            choice.add_extra(built)
        return fields


class _ChoiceCollector:
    """Collector of the events of one choice.

    Members that are passed on are collected apart; those of the response in `response_extra`, where the last value of
    each counts, as it does for the members that OpenAI's accumulators know.
    """

    def __init__(self, index: int, reasoning: ReasoningField, functions: bool, response_extra: dict[str, Any]) -> None:
        self._index = index
        self._functions = functions
        self._field = reasoning
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusals: list[str] = []
        self._calls: list[tuple[CallStarted, list[str]]] = []
        self._logprobs: list[TokenLogprob] | None = None
        self._token_ids: list[int] | None = None
        self._reason: FinishReason = "stop"
        self._message_extra = MergedObject()
        self._extra: dict[str, Any] = {}
        self._call_extra: dict[int, MergedObject] = {}
        self._response_extra = response_extra

    def receive(self, event: Event) -> None:
        match event:
            case TextDelta():
                self._texts.append(event.text)
                if event.logprobs is not None:
                    self._logprobs = self._logprobs or []
                    self._logprobs += event.logprobs
                if event.token_ids is not None:
                    self._token_ids = self._token_ids or []
                    self._token_ids += event.token_ids
            case ReasoningDelta():
                self._reasoning.append(event.text)
            case RefusalDelta():
                self._refusals.append(event.text)
            case CallStarted():
                self._calls.append((event, []))
                self._add_call_extra(event.index, event.extra)
            case CallArguments():
                self._calls[event.index][1].append(event.text)
            case CallExtra():
                self._add_call_extra(event.index, event.extra)
            case Extra():
                self._message_extra.add(event.message)
                self._extra |= event.fields
            case ResponseExtra():
                self._response_extra |= event.fields
            case Finished():
                self._reason = event.reason

    def _add_call_extra(self, index: int, extra: dict[str, Any] | None) -> None:
        if extra:
            self._call_extra.setdefault(index, MergedObject()).add(extra)

    @property
    def size(self) -> int:
        parts = len(self._texts) + len(self._reasoning) + sum(len(arguments) for _, arguments in self._calls)
        logprobs = self._logprobs or []
        width = len(logprobs[0].top_logprobs) if logprobs else 0
        return size_of_choice(parts, ids=len(self._token_ids or ()), logprobs=len(logprobs), width=width)

    @property
    def has_extra(self) -> bool:
        return bool(self._message_extra or self._extra or self._call_extra)

    def add_extra(self, built: dict[str, Any]) -> None:
        """Add the members that are passed on to the JSON of this choice."""
        message = built["message"]
        for index, merged in self._call_extra.items():
            extra = merged.build()
            if not self._functions:
                message["tool_calls"][index] = with_extra(message["tool_calls"][index], extra)
            elif index == 0:
                message["function_call"] = with_extra(message["function_call"], extra.get("function", {}))
        message |= self._message_extra.build()
        built |= self._extra

    def build(self) -> Choice:
        calls = [
            ToolCall(id=call.id, function=CalledFunction(name=call.name, arguments="".join(arguments)))
            for call, arguments in self._calls
        ]
        text, reasoning = "".join(self._texts), "".join(self._reasoning)
        message = AnswerMessage(
            content=None if (calls or self._refusals) and not text else text,
            refusal="".join(self._refusals) or None,
            tool_calls=calls if calls and not self._functions else UNSET,
            function_call=calls[0].function if calls and self._functions else UNSET,
            **(reasoning_fields(reasoning, self._field) if reasoning else {}),
        )
        return Choice(
            index=self._index,
            message=message,
            logprobs=None if self._logprobs is None else Logprobs(content=self._logprobs),
            finish_reason="function_call" if self._functions and self._reason == "tool_calls" else self._reason,
            token_ids=UNSET if self._token_ids is None else self._token_ids,
        )
