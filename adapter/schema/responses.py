"""What is sent back, beside chunks: see chunks.py for those."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from adapter.schema.logprobs import Logprobs
from adapter.schema.messages import ToolCall

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Error(Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(Struct, frozen=True):
    error: Error


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int = 0


class CompletionTokensDetails(Struct, frozen=True):
    reasoning_tokens: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """`completion_tokens` are those that a node delivered, over all choices: the token that ends a turn, which is
    never delivered, is not counted. After a stop string was found no token counts any more.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


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


class ModelObject(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "subnet"


class ModelList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ModelObject]
