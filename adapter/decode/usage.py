"""Tokens that a request used."""

from __future__ import annotations

from msgspec import Struct


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


NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0, prompt_tokens_details=PromptTokensDetails())
