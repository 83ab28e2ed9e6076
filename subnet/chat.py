"""Requests to servers that accept messages and text instead of token ids, and their responses."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Endpoint = Literal["chat/completions", "completions", "embeddings"]
"""Endpoint of OpenAI's API, without /v1/."""

ChatFinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation to be answered, or one prompt to be continued.

    `body` is the JSON body of a POST to OpenAI's `endpoint`, which is that of chat completions or of text completions,
    without `model`, `n`, `stream` and `stream_options`, which the protocol sets. The gateway has checked that it has
    `messages`, or a `prompt`: a string or a list of token ids. It is shared between attempts and must not be modified.
    `model` is the gateway's name of the model. `choices` are the numbers of the choices to generate, which their deltas
    carry.

    `size` is that of the JSON body in bytes, if it is known: then a large one is not encoded only to be measured.

    `own_seed` is a seed for nodes with the capability `seeds`, if `body` has none: it makes the answer repeatable.

    `prefix` is the beginning of the only choice, which the server is to continue: in a conversation, only for nodes
    with the capability `prefill`.
    """

    model: str
    body: dict[str, Any]
    endpoint: Endpoint = "chat/completions"
    choices: tuple[int, ...] = (0,)
    prefix: str = ""
    own_seed: int = 0
    size: int = 0

    @property
    def input(self) -> Any:
        """The messages, or the prompt."""
        return self.body.get("messages" if self.endpoint == "chat/completions" else "prompt")

    @property
    def is_whole(self) -> bool:
        """True if the server cannot stream the answer, because it picks the best of several."""
        best_of = self.body.get("best_of")
        return self.endpoint == "completions" and type(best_of) is int and best_of > 1


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

    `logprobs` are validated entries of OpenAI's `choices[].logprobs.content`; in text completions they also have the
    `text_offset` of each token. `finish_reason` is set on the last delta of a choice. `extra` are members of the
    server's message that OpenAI's API does not have here, such as annotations or audio, `choice_extra` those of its
    choice, and `response_extra` those of the chunk or response itself, which only deltas with content or a finish
    reason have.
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


class ChatText(ChatDelta, gc=False):
    """Delta with a text that is not empty, and nothing else: nearly all are. Each step on the way of a token has a
    short path for this type.
    """


class ChatUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts, as the server reported them. `extra` are further members of its report, such as a price; those of
    the details are in `extra["prompt_tokens_details"]` and `extra["completion_tokens_details"]`.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    extra: dict[str, Any] | None = None


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`count` inputs to be embedded. `body` is the JSON body of OpenAI's POST /v1/embeddings, without `model`, which is
    the gateway's name of the model.
    """

    model: str
    body: dict[str, Any]
    count: int


class EmbeddingsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Validated JSON `body` of a server's response, with one entry for each input and the gateway's name of the model,
    and its count of tokens; 0 if the server reports none.
    """

    body: bytes
    prompt_tokens: int = 0
