"""Conversion of an engine's logprobs to OpenAI's format."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from subnet.generation import TokenLogprobs


class TopLogprob(Struct, frozen=True, kw_only=True, gc=False):
    """Log probability of a token. In `token` incomplete UTF-8 is U+FFFD; `bytes` has the token's actual bytes."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob, frozen=True, kw_only=True, gc=False):
    """Log probability of a generated token. `top_logprobs` has the most likely tokens first, or is empty if none were
    requested.

    The first token of a prompt that a server of the chat lane echoes has none: its `logprob` is NaN, null in JSON.
    """

    top_logprobs: list[TopLogprob]


NEVER = -9999.0
"""OpenAI's value for the logarithm of zero, which JSON cannot express."""


class LogprobFormatter:
    """Formats logprobs of a model whose token i has the bytes `pieces[i]`, with at most `max_top` alternatives each."""

    def __init__(self, pieces: Sequence[bytes], max_top: int) -> None:
        self._pieces = pieces
        self._max_top = max_top

    def format(self, token: int, logprobs: TokenLogprobs) -> TokenLogprob:
        tops = zip(logprobs.top_ids[: self._max_top], logprobs.top_logprobs, strict=False)
        piece = self._piece(token)
        return TokenLogprob(
            token=piece.decode(errors="replace"),
            logprob=max(NEVER, logprobs.logprob),
            bytes=list(piece),
            top_logprobs=[self._top(other, logprob) for other, logprob in tops],
        )

    def _top(self, token: int, logprob: float) -> TopLogprob:
        piece = self._piece(token)
        return TopLogprob(token=piece.decode(errors="replace"), logprob=max(NEVER, logprob), bytes=list(piece))

    def _piece(self, token: int) -> bytes:
        # Some models have more logits than their vocabulary has tokens.
        return self._pieces[token] if token < len(self._pieces) else b""
