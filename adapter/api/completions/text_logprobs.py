"""Logprobs in the form of POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adapter.api.common.logprob_types import TextLogprobs
from adapter.decode.token_logprobs import LogprobFormatter, TokenLogprob, TopLogprob
from adapter.generation.model_registry import Model
from adapter.generation.plain_text import token_offsets
from subnet.generation import TokenLogprobs


def text_logprobs(formatted: Sequence[TokenLogprob], offsets: Iterable[int]) -> TextLogprobs:
    """`offsets` say where in the text each of the tokens begins."""
    return TextLogprobs(
        tokens=[_text(one) for one in formatted],
        token_logprobs=[one.logprob for one in formatted],
        top_logprobs=[_tops(one) for one in formatted],
        text_offset=list(offsets),
    )


def prompt_logprobs(
    model: Model, tokens: Sequence[int], text: str, scores: Sequence[TokenLogprobs], width: int
) -> TextLogprobs:
    """Of a prompt whose tokens but the first have these `scores`; `text` is what is shown of it."""
    formatter, offsets = LogprobFormatter(model.tokenizer.pieces, width), token_offsets(model, tokens, text)
    formatted = [formatter.format(token, score) for token, score in zip(tokens[1:], scores, strict=True)]
    begun = TextLogprobs(
        tokens=[_shown(model.tokenizer.pieces[tokens[0]])],
        token_logprobs=[None],
        top_logprobs=[None],
        text_offset=offsets[:1],
    )
    return joined([begun, text_logprobs(formatted, offsets[1:])])


def joined(parts: Sequence[TextLogprobs]) -> TextLogprobs:
    """One after the other."""
    return TextLogprobs(
        tokens=[token for part in parts for token in part.tokens],
        token_logprobs=[logprob for part in parts for logprob in part.token_logprobs],
        top_logprobs=[top for part in parts for top in part.top_logprobs],
        text_offset=[offset for part in parts for offset in part.text_offset],
    )


def _tops(one: TokenLogprob) -> dict[str, float]:
    """The likeliest, and the token itself where it is none of them. Of tokens with the same text the likeliest."""
    found: dict[str, float] = {}
    for top in (*one.top_logprobs, one):
        found.setdefault(_text(top), top.logprob)
    return found


def _text(one: TopLogprob) -> str:
    return one.token if one.bytes is None else _shown(bytes(one.bytes))


def _shown(piece: bytes) -> str:
    """As OpenAI shows a token that is a part of a character: bytes:\\xf0\\x9f."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
