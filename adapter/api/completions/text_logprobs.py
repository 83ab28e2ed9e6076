"""Logprobs in the format of POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan

from adapter.api.common.logprob_types import TextLogprobs
from adapter.decode.token_logprobs import LogprobFormatter, TokenLogprob, TopLogprob
from adapter.generation.model_registry import Model
from adapter.generation.plain_text import token_offsets
from subnet.generation import TokenLogprobs


def text_logprobs(formatted: Sequence[TokenLogprob], offsets: Iterable[int]) -> TextLogprobs:
    """Return the logprobs of tokens; `offsets` are the indexes of the characters at which they start."""
    return TextLogprobs(
        tokens=[_text(one) for one in formatted],
        token_logprobs=[one.logprob for one in formatted],
        top_logprobs=[None if isnan(one.logprob) else _top_logprobs(one) for one in formatted],
        text_offset=list(offsets),
    )


def prompt_logprobs(
    model: Model, tokens: Sequence[int], text: str, scores: Sequence[TokenLogprobs], width: int
) -> TextLogprobs:
    """Return the logprobs of a prompt: `scores` are those of its tokens but the first, `text` is the prompt as shown.

    `width` is the number of most likely tokens to include.
    """
    formatter, offsets = LogprobFormatter(model.tokenizer.pieces, width), token_offsets(model, tokens, text)
    formatted = [formatter.format(token, score) for token, score in zip(tokens[1:], scores, strict=True)]
    first = TextLogprobs(
        tokens=[_printable(model.tokenizer.pieces[tokens[0]])],
        token_logprobs=[None],
        top_logprobs=[None],
        text_offset=offsets[:1],
    )
    return concatenate([first, text_logprobs(formatted, offsets[1:])])


def concatenate(parts: Sequence[TextLogprobs]) -> TextLogprobs:
    """Return the concatenation of `parts`."""
    return TextLogprobs(
        tokens=[token for part in parts for token in part.tokens],
        token_logprobs=[logprob for part in parts for logprob in part.token_logprobs],
        top_logprobs=[top for part in parts for top in part.top_logprobs],
        text_offset=[offset for part in parts for offset in part.text_offset],
    )


def _top_logprobs(one: TokenLogprob) -> dict[str, float]:
    """Return the logprobs of the most likely tokens and of the token itself, by text; of equal texts the highest."""
    found: dict[str, float] = {}
    for top in (*one.top_logprobs, one):
        found.setdefault(_text(top), top.logprob)
    return found


def _text(one: TopLogprob) -> str:
    return one.token if one.bytes is None else _printable(bytes(one.bytes))


def _printable(piece: bytes) -> str:
    """Return a token as text; a part of a character as OpenAI writes it: bytes:\\xf0\\x9f."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
