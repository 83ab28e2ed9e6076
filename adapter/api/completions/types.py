"""Request and response types of POST /v1/completions. A streamed response has `text_completion` objects, too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from adapter.api.common.inputs import Input, split_inputs
from adapter.api.common.logprob_types import TextLogprobs
from adapter.api.common.sampling import MAX_INT, Envelope, SamplingRequest
from adapter.decode.usage import Usage

DEFAULT_MAX_TOKENS = 16

TextFinishReason = Literal["stop", "length", "content_filter"]


class CompletionEnvelope(Envelope, frozen=True, kw_only=True):
    """A request for text completions as far as the gateway itself needs it."""

    prompt: Input
    best_of: Any = None
    logprobs: Any = None


class CompletionRequest(SamplingRequest, frozen=True, kw_only=True):
    """A request for text completions."""

    prompt: Input
    max_tokens: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or a list of token ids. Choice i of prompt p has the index p * n + i."""
        return split_inputs(self.prompt)

    @property
    def limit(self) -> int:
        """Maximum number of new tokens per choice; 0 to get only the prompt's logprobs."""
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else min(self.max_tokens, MAX_INT)

    @property
    def num_logprobs(self) -> int | None:
        """Number of most likely tokens whose logprobs are returned beside each token's own; None: no logprobs."""
        return self.logprobs


class TextChoice(Struct, frozen=True, kw_only=True):
    """A choice. `token_ids` and `prompt_token_ids` are present if `return_token_ids` was set.

    In a stream, `finish_reason` is null in all events of a choice but the last. On the chat lane, a choice also has
    whatever else the server put in it.
    """

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: TextFinishReason | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class TextCompletion(Struct, frozen=True, kw_only=True):
    """A text completion, or an event of a streamed one.

    In a stream, `usage` is absent without `include_usage`; with it, null in all events but the last, unless
    `continuous_usage_stats` is set.
    """

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
