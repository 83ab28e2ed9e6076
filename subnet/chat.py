"""What is asked of a server that takes messages instead of tokens, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

ChatFinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation to be answered.

    `body` is the JSON object that OpenAI's POST /v1/chat/completions takes, checked by the gateway, without `model`,
    `n`, `stream` and `stream_options`: these are the protocol's. It is shared, and never written to. `model` is the
    gateway's name of it. As many answers are asked for as `choices` has numbers, and the deltas bear these.

    `begun` is the text with which the only answer begins already, to be gone on with: only for nodes whose
    capabilities say `prefill`.
    """

    model: str
    body: dict[str, Any]
    choices: tuple[int, ...] = (0,)
    begun: str = ""


class CallDelta(msgspec.Struct, gc=False):
    """A piece of the call `index` of its choice, counted from 0. The first of a call has `id` and `name`, whole."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class ChatDelta(msgspec.Struct, gc=False):
    """What one event adds to one choice; one that adds nothing is a sign of life.

    `logprobs` are entries of OpenAI's `choices[].logprobs.content`, as they came, checked. `finish_reason` is set on
    the last delta of a choice.
    """

    choice: int
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[CallDelta, ...] = ()
    logprobs: list[dict[str, Any]] | None = None
    finish_reason: ChatFinishReason | None = None

    @property
    def tokens(self) -> int:
        """How many it is, at least; 0 where it says nothing."""
        if not (self.text or self.reasoning or self.refusal or self.calls or self.logprobs):
            return 0
        return max(1, len(self.logprobs or ()))


class ChatUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


EmitChat = Callable[[ChatDelta], None]
