"""Response types of POST /v1/messages and its /count_tokens: messages, and the events of a stream."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from adapter.decode.usage import Usage

StopReason = Literal["end_turn", "max_tokens", "model_context_window_exceeded", "stop_sequence", "tool_use", "refusal"]


class OutputTokensDetails(Struct, frozen=True):
    thinking_tokens: int


class MessageUsage(Struct, frozen=True, kw_only=True):
    """Token counts of a message. The prompt has `input_tokens` and those read from a cache."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int
    output_tokens_details: OutputTokensDetails | UnsetType = UNSET

    @classmethod
    def of(cls, usage: Usage, *, is_final: bool = True) -> MessageUsage:
        """Return `usage` in Anthropic's terms; what is generated so far is not reported, as it depends on timing."""
        cached, reasoning = usage.prompt_tokens_details.cached_tokens, usage.completion_tokens_details.reasoning_tokens
        return cls(
            input_tokens=max(0, usage.prompt_tokens - cached),
            cache_read_input_tokens=cached,
            output_tokens=usage.completion_tokens if is_final else 0,
            output_tokens_details=OutputTokensDetails(reasoning) if reasoning and is_final else UNSET,
        )


class Text(Struct, frozen=True, tag_field="type", tag="text"):
    text: str = ""


class Thinking(Struct, frozen=True, tag_field="type", tag="thinking"):
    thinking: str = ""
    signature: str = ""


class ToolUse(Struct, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any] = {}


ContentBlock = Text | Thinking | ToolUse


class Message(Struct, frozen=True, kw_only=True):
    """The generated message. `stop_reason` is null at the start of a stream."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage


class TextPiece(Struct, frozen=True, tag_field="type", tag="text_delta"):
    text: str


class ThinkingPiece(Struct, frozen=True, tag_field="type", tag="thinking_delta"):
    thinking: str


class SignaturePiece(Struct, frozen=True, tag_field="type", tag="signature_delta"):
    signature: str


class InputPiece(Struct, frozen=True, tag_field="type", tag="input_json_delta"):
    partial_json: str


class MessageStart(Struct, frozen=True, tag_field="type", tag="message_start"):
    message: Message


class BlockStart(Struct, frozen=True, tag_field="type", tag="content_block_start"):
    index: int
    content_block: ContentBlock


class BlockDelta(Struct, frozen=True, tag_field="type", tag="content_block_delta"):
    index: int
    delta: TextPiece | ThinkingPiece | SignaturePiece | InputPiece


class BlockStop(Struct, frozen=True, tag_field="type", tag="content_block_stop"):
    index: int


class Stop(Struct, frozen=True):
    """Why a message ended. `stop_sequence` is the one that ended it."""

    stop_reason: StopReason
    stop_sequence: str | None = None


class MessageDelta(Struct, frozen=True, tag_field="type", tag="message_delta"):
    delta: Stop
    usage: MessageUsage


class MessageStop(Struct, frozen=True, tag_field="type", tag="message_stop"):
    pass


class Ping(Struct, frozen=True, tag_field="type", tag="ping"):
    """Keep-alive of a stream without news."""


BlockEvent = BlockStart | BlockDelta | BlockStop
StreamEvent = MessageStart | BlockEvent | MessageDelta | MessageStop | Ping


class ErrorDetail(Struct, frozen=True):
    type: str
    message: str


class ErrorMessage(Struct, frozen=True):
    """An error, as a response or as the last event of a stream. `request_id` is that of the header."""

    error: ErrorDetail
    request_id: str
    type: Literal["error"] = "error"


class TokenCount(Struct, frozen=True):
    """Number of tokens of a prompt."""

    input_tokens: int
