"""Requests to servers that accept messages instead of token ids, and their responses."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ChatFinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation to be answered.

    `body` is the JSON body of OpenAI's POST /v1/chat/completions, validated by the gateway, without `model`, `n`,
    `stream` and `stream_options`, which the protocol sets. It is shared between attempts and must not be modified.
    `model` is the gateway's name of the model. `choices` are the numbers of the choices to generate, which their deltas
    carry.

    `size` is that of the JSON body in bytes, if it is known: then a large one is not encoded only to be measured.

    `own_seed` is a seed for nodes with the capability `seeds`, if `body` has none: it makes the answer repeatable.

    `prefix` is the beginning of the only choice, which the server is to continue: only for nodes with the capability
    `prefill`.
    """

    model: str
    body: dict[str, Any]
    choices: tuple[int, ...] = (0,)
    prefix: str = ""
    own_seed: int = 0
    size: int = 0


class CallDelta(msgspec.Struct, gc=False):
    """Part of the tool call `index` of its choice, counted from 0. The first part has the complete `id` and `name`.

    `extra` are new members of the server's call that OpenAI's API does not have; those of its function are in
    `extra["function"]`.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] | None = None


class ChatDelta(msgspec.Struct, gc=False):
    """New content of one choice; a delta without content is a keep-alive.

    `logprobs` are validated entries of OpenAI's `choices[].logprobs.content`. `finish_reason` is set on the last delta
    of a choice. `extra` are members of the server's message that OpenAI's API does not have here, such as annotations
    or audio, `choice_extra` those of its choice, and `response_extra` those of the chunk or response itself, which only
    deltas with content or a finish reason have.
    """

    choice: int
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: tuple[CallDelta, ...] = ()
    logprobs: list[dict[str, Any]] | None = None
    finish_reason: ChatFinishReason | None = None
    extra: dict[str, Any] | None = None
    choice_extra: dict[str, Any] | None = None
    response_extra: dict[str, Any] | None = None

    @property
    def tokens(self) -> int:
        """Minimum number of tokens in this delta; 0 without content."""
        if self.logprobs:
            return len(self.logprobs)
        more = self.text or self.reasoning or self.refusal or self.calls or self.extra or self.choice_extra
        return 1 if more else 0

    @property
    def is_text(self) -> bool:
        """True if there is text and nothing else, as in nearly every delta."""
        more = self.reasoning or self.refusal or self.calls or self.logprobs or self.finish_reason
        return bool(self.text) and not (more or self.extra or self.choice_extra or self.response_extra)


class ChatUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts, as the server reported them. `extra` are further members of its report, such as a price; those of
    the details are in `extra["prompt_tokens_details"]` and `extra["completion_tokens_details"]`.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    extra: dict[str, Any] | None = None
