"""POST /v1/completions: what it takes and gives. Streamed or not, an answer is made of `text_completion` objects."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from adapter.api.common.inputs import Input, split_inputs
from adapter.api.common.logprob_types import TextLogprobs
from adapter.api.common.sampling import MAX_INT, SamplingRequest
from adapter.decode.usage import Usage

DEFAULT_MAX_TOKENS = 16


class CompletionRequest(SamplingRequest, frozen=True, kw_only=True):
    prompt: Input
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_INT)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each a text or its token ids. Choice i of prompt p has the index p * n + i."""
        return split_inputs(self.prompt)

    @property
    def limit(self) -> int:
        """Of new tokens, per choice. It may be 0: only the prompt's logprobs are of interest."""
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """None: no logprobs; k: that of each token, and of the k likeliest."""
        return self.logprobs


class TextChoice(Struct, frozen=True, kw_only=True):
    """`token_ids` and `prompt_token_ids` are there where `return_token_ids` asked for them."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class TextCompletion(Struct, frozen=True, kw_only=True):
    """`finish_reason` is null in all but the last event of a choice; `usage` is absent from events where it was not
    asked for, null in all but the last where it was.
    """

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
