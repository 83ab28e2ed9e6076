"""Logprobs as they are shown: natural logarithms of the probabilities of tokens."""

from __future__ import annotations

from msgspec import Struct

from adapter.decode.token_logprobs import TokenLogprob


class Logprobs(Struct, frozen=True, kw_only=True):
    """Of one choice of a chat answer, or of what one chunk adds to it."""

    content: list[TokenLogprob] | None
    refusal: None = None


class TextLogprobs(Struct, frozen=True, kw_only=True):
    """Of one choice of a text completion: lists that are equally long.

    `text_offset` says at which character of the text a token begins. `top_logprobs` has the likeliest tokens in its
    place, and itself. The first token of an echoed prompt has none of this (null).
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
