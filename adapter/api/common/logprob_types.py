"""Types of logprobs in responses: natural logarithms of the probabilities of tokens."""

from __future__ import annotations

from msgspec import Struct

from adapter.decode.token_logprobs import TokenLogprob


class Logprobs(Struct, frozen=True, kw_only=True):
    """Logprobs of a choice of a chat completion, or of the part that a chunk adds."""

    content: list[TokenLogprob] | None
    refusal: None = None


class TextLogprobs(Struct, frozen=True, kw_only=True):
    """Logprobs of a choice of a text completion; all lists have the same length.

    `text_offset` is the index of the character at which a token starts. `top_logprobs` has the most likely tokens at
    that position, and the token itself. Both kinds of logprobs are null for the first token of an echoed prompt.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
