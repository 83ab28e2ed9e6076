"""An engine's logprobs -> what is shown of them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from subnet.generation import TokenLogprobs


class TopLogprob(Struct, frozen=True, kw_only=True, gc=False):
    """`bytes` are the token's own, also where `token` shows a part of a character as U+FFFD."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob, frozen=True, kw_only=True, gc=False):
    """`top_logprobs` has the likeliest tokens first; it is empty where none were asked for."""

    top_logprobs: list[TopLogprob]


NEVER = -9999.0
"""OpenAI's word for the logarithm of nothing, which JSON has no number for."""


class Teller:
    """`pieces[i]` are the bytes of token i, `most` is how many of the likeliest tokens are shown beside each."""

    def __init__(self, pieces: Sequence[bytes], most: int) -> None:
        self._pieces = pieces
        self._most = most

    def told(self, token: int, logprobs: TokenLogprobs) -> TokenLogprob:
        """As OpenAI shows it; a part of a character is U+FFFD in `token`, and itself in `bytes`."""
        tops = zip(logprobs.top_ids[: self._most], logprobs.top_logprobs, strict=False)
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
        # Some models have more rows than their vocabulary has words.
        return self._pieces[token] if token < len(self._pieces) else b""
