"""A request for an answer to a conversation, as chat completions have it. A null is the same as an absent field."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from adapter.api.common.formats import ReasoningEffort, Verbosity
from adapter.api.common.sampling import MAX_INT, SamplingRequest, TokenLimit
from adapter.api.conversation.message_types import MAX_MESSAGES, Message
from adapter.api.conversation.tools import ToolChoice, Tools

MAX_DOCUMENTS = 1024

Messages = Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]


class ChatCompletionRequest(SamplingRequest, frozen=True, kw_only=True):
    """A request for a chat completion. Parameters that are rejected or have no effect are not listed."""

    messages: Messages
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ReasoningEffort | None = None
    verbosity: Verbosity | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: Annotated[list[dict[str, Any]], Meta(max_length=MAX_DOCUMENTS)] | None = None

    @property
    def limit(self) -> int | None:
        """Maximum number of new tokens per choice; None if the request sets none."""
        given = self.max_completion_tokens or self.max_tokens
        return None if given is None else min(given, MAX_INT)

    @property
    def num_logprobs(self) -> int | None:
        """Number of most likely tokens whose logprobs are returned beside each token's own; None: no logprobs."""
        return (self.top_logprobs or 0) if self.logprobs else None
