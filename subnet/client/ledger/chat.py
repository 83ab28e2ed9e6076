"""The ledger of the chat lane: messages in, text and tool calls out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from subnet.chat import CallDelta, ChatDelta, ChatRequest, ChatUsage
from subnet.client.ledger.base import Ledger
from subnet.errors import WireError
from subnet.pool.policies.base import RoutingHint

# What a policy may compare, in bytes, and how many of them are a token, about.
_BEGINNING, _TOKEN = 4096, 4
# Parameters that ask for a form.
_FORMS = (
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "grammar",
    "json_schema",
)


class ChatCall:
    """A tool call as far as it was delivered."""

    __slots__ = ("arguments", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments: list[str] = []


class ChatChoice:
    """One of the answers, as far as it was delivered. `tokens` are as many as came in pieces of their own, at least;
    `uncounted` are those of them that no server's usage has.
    """

    __slots__ = ("calls", "entries", "finished", "index", "reasoning", "refusal", "text", "tokens", "uncounted")

    def __init__(self, index: int) -> None:
        self.index = index
        self.finished = False
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[ChatCall] = []
        self.entries = 0
        self.tokens = 0
        self.uncounted = 0

    @property
    def plain(self) -> bool:
        """Whether all of it is text."""
        return not (self.reasoning or self.refusal or self.calls)

    def add(self, delta: ChatDelta) -> None:
        self.tokens += delta.tokens
        self.uncounted += delta.tokens
        self.entries += len(delta.logprobs or ())
        self.finished = delta.finish_reason is not None
        for said, more in ((self.text, delta.text), (self.reasoning, delta.reasoning), (self.refusal, delta.refusal)):
            if more:
                said.append(more)
        for call in delta.calls:
            self._call(call)

    def _call(self, delta: CallDelta) -> None:
        if delta.index == len(self.calls) and delta.name:
            self.calls.append(ChatCall(delta.name))
        if not 0 <= delta.index < len(self.calls):
            raise WireError("received arguments for an unknown tool call")
        self.calls[delta.index].arguments.append(delta.arguments)


class ChatLedger(Ledger[ChatDelta]):
    """Of `request`."""

    __slots__ = ("_prompt_tokens", "_reported", "choices", "request")

    lane = "chat"
    choices: list[ChatChoice]

    def __init__(self, request: ChatRequest, key: str | None = None) -> None:
        said = msgspec.json.encode(request.body.get("messages"))
        beginning = np.frombuffer(said[:_BEGINNING], np.uint8).astype(np.int32)
        super().__init__(request.model, len(said) // _TOKEN, RoutingHint(beginning, key))
        self.request = request
        self.choices = [ChatChoice(index) for index in range(len(request.choices))]
        self._reported: list[ChatUsage] = []
        self._prompt_tokens: int | None = None

    @property
    def unfinished(self) -> list[ChatChoice]:
        return [choice for choice in self.choices if not choice.finished]

    @property
    def delivered(self) -> int:
        return sum(choice.tokens for choice in self.choices)

    @property
    def limit(self) -> int | None:
        """Tokens that a choice may have."""
        body = self.request.body
        found: int | None = body.get("max_completion_tokens") or body.get("max_tokens")
        return found

    @property
    def usage(self) -> ChatUsage:
        """What the servers told, and for what they did not tell, as many tokens as pieces came."""
        reported = self._reported
        return ChatUsage(
            prompt_tokens=self.size if self._prompt_tokens is None else self._prompt_tokens,
            completion_tokens=sum(usage.completion_tokens for usage in reported)
            + sum(choice.uncounted for choice in self.choices),
            cached_tokens=max((usage.cached_tokens for usage in reported), default=0),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in reported),
        )

    def close_full(self) -> list[ChatDelta]:
        limit = self.limit
        full = [choice for choice in self.unfinished if limit is not None and choice.tokens >= limit]
        for choice in full:
            choice.finished = True
        return [ChatDelta(choice.index, finish_reason="length") for choice in full]

    def settle(self, request: ChatRequest, usage: ChatUsage, before: Sequence[int]) -> None:
        """`request` came to its end, and used that; its choices had so many tokens `before` that are not in it."""
        self._reported.append(usage)
        if self._prompt_tokens is None:
            self._prompt_tokens = max(0, usage.prompt_tokens - sum(before))
        for index, count in zip(request.choices, before, strict=True):
            self.choices[index].uncounted = count


def repeatable(body: dict[str, Any]) -> bool:
    """Whether the same request should give the same answer."""
    return body.get("temperature") == 0 or body.get("seed") is not None


def free(body: dict[str, Any]) -> bool:
    """Whether the rest of an answer may be written without knowing how its beginning came about: no form is asked for
    that a server would begin anew, and the answer is a message of its own.
    """
    form = (body.get("response_format") or {}).get("type", "text")
    forced = body.get("tool_choice") not in (None, "none", "auto")
    structured = any(body.get(name) is not None for name in _FORMS)
    return form == "text" and not forced and not structured and body["messages"][-1].get("role") != "assistant"
