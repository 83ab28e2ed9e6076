"""What is sent back, beside chunks: see chunks.py for those."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from adapter.api.chat.message_types import ToolCall
from adapter.api.common.logprob_types import Logprobs
from adapter.decode.events import FinishReason
from adapter.decode.usage import Usage


class AnswerMessage(Struct, frozen=True, kw_only=True):
    """`content` is null where there are only calls. What a model thought comes in `reasoning_content`, or in
    `reasoning`, as the operator chose; both and `tool_calls` are absent where there is nothing to say.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class Choice(Struct, frozen=True, kw_only=True):
    """`token_ids` is there where `return_token_ids` asked for it."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """`prompt_token_ids` is there where `return_token_ids` asked for it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str
    prompt_token_ids: list[int] | UnsetType = UNSET


class FunctionDelta(Struct, frozen=True, kw_only=True):
    """`name` comes once and whole; the `arguments` of all deltas, put together, are the arguments."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct, frozen=True, kw_only=True):
    """The first of a call has its `id` and `type` and the function's name; no later one repeats them, as clients
    join strings that come twice.
    """

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class ChunkDelta(Struct, frozen=True, kw_only=True):
    """The first of a choice has the role. `content` is null only there, where a choice begins with a call."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """`finish_reason` is null in all but the last chunk of a choice; `token_ids` is there where `return_token_ids`
    asked for it.
    """

    index: int
    delta: ChunkDelta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletionChunk(Struct, frozen=True, kw_only=True):
    """`usage` is absent where it was not asked for, null on all chunks but the last where it was.

    `prompt_token_ids` is in the first chunk where `return_token_ids` asked for it.
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
    """See subnet/generation.py for the kinds."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str


class Rendered(Struct, frozen=True, kw_only=True):
    """What POST /v1/chat/completions would ask a node for the same request.

    `tool_format` and `reasoning` say how the model writes calls and reasoning, and so how its answer is read (null: it
    does not); `grammar` is what the engine would hold the answer to (null: nothing).
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
