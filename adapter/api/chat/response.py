"""Response types of POST /v1/chat/completions and its /render. stream.py writes the chunks."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from adapter.api.common.logprob_types import Logprobs
from adapter.api.conversation.message_types import CalledFunction, ToolCall
from adapter.decode.events import FinishReason
from adapter.decode.usage import Usage


class AnswerMessage(Struct, frozen=True, kw_only=True):
    """The generated message. `content` is null if there are only tool calls or a refusal.

    Reasoning is in `reasoning_content`, in `reasoning`, or in both, as the gateway is configured. These fields and
    `tool_calls` are absent if empty. `function_call` is the older form, for requests with `functions`.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: CalledFunction | UnsetType = UNSET


class Choice(Struct, frozen=True, kw_only=True):
    """A choice of a chat completion. `token_ids` is present if `return_token_ids` was set."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | Literal["function_call"]
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """A chat completion that is not streamed. `prompt_token_ids` is present if `return_token_ids` was set."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str
    prompt_token_ids: list[int] | UnsetType = UNSET


class FunctionDelta(Struct, frozen=True, kw_only=True):
    """Part of a function call. `name` is sent once and complete; `arguments` are to be concatenated."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct, frozen=True, kw_only=True):
    """Part of a tool call. Only the first one of a call has `id`, `type` and the function's name, as clients
    concatenate strings that are repeated.
    """

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class ChunkDelta(Struct, frozen=True, kw_only=True):
    """Part of a message that a chunk adds to a choice.

    Only the first one of a choice has the role; its `content` is null if the choice starts with a tool call.
    """

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """A choice in a chunk. `finish_reason` is null in all chunks of a choice but the last. `token_ids` is present if
    `return_token_ids` was set.
    """

    index: int
    delta: ChunkDelta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | Literal["function_call"] | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletionChunk(Struct, frozen=True, kw_only=True):
    """A chunk of a streamed chat completion.

    Without `include_usage`, `usage` is absent; with it, null in all chunks but the last, unless
    `continuous_usage_stats` is set. `prompt_token_ids` is in the first chunk if `return_token_ids` was set.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class RenderedGrammar(Struct, frozen=True):
    """Grammar that constrains the answer."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str


class Rendered(Struct, frozen=True, kw_only=True):
    """The prompt and options that POST /v1/chat/completions would send to a node for the same request.

    `tool_format` and `reasoning` are the formats in which the model writes tool calls and reasoning (null: none);
    `grammar` constrains the answer (null: no constraint).
    """

    model: str
    prompt: str
    prompt_token_ids: list[int]
    count: int
    max_model_len: int
    max_tokens: int
    tool_format: str | None
    reasoning: str | None
    grammar: RenderedGrammar | None
