"""Token counts of a request, as OpenAI reports them."""

from __future__ import annotations

from msgspec import Struct


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int = 0


class CompletionTokensDetails(Struct, frozen=True):
    reasoning_tokens: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of a request.

    `completion_tokens` counts the tokens that nodes delivered, over all choices. It excludes end-of-turn tokens, which
    are never delivered, and tokens after a stop string.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0, prompt_tokens_details=PromptTokensDetails())
