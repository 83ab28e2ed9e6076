"""Prompts and other inputs that are no conversation -> token ids."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence

import numpy as np

from adapter.errors import BadRequest
from adapter.generation.model_registry import Model
from adapter.generation.param_names import naming
from subnet.errors import ContextLengthExceeded
from subnet.tensors import TokenIds, token_ids

_decoder = getincrementaldecoder("utf-8")


def prompt_tokens(model: Model, prompt: str | Sequence[int], place: str) -> TokenIds:
    """Of what the model goes on from: it is all the client's, so control tokens may be written in it, as `<|im_end|>`.

    Raises BadRequest and InvalidRequest, which name `place`.
    """
    if not isinstance(prompt, str):
        return known_tokens(model, prompt, place)
    return _some(begun(model, written_tokens(model, prompt, place)), place)


def plain_tokens(model: Model, text: str | Sequence[int], place: str) -> TokenIds:
    """Of what the model only reads: what looks like a control token stays text. Raises as `prompt_tokens`."""
    if not isinstance(text, str):
        return known_tokens(model, text, place)
    with naming({"messages": place}):
        return _some(model.tokenizer.encode_bare(text), place)


def written_tokens(model: Model, text: str, place: str) -> TokenIds:
    """Of nothing but `text`, in which control tokens may be written. Raises InvalidRequest."""
    with naming({"messages": place}):
        return model.tokenizer.encode_prompt(text)


def begun(model: Model, tokens: TokenIds) -> TokenIds:
    """With the token that the model wants before all others, where it wants one."""
    first = model.tokenizer.encode_bare("")
    return tokens if np.array_equal(tokens[: len(first)], first) else np.concatenate([first, tokens])


def known_tokens(model: Model, tokens: Sequence[int], place: str) -> TokenIds:
    """Raises BadRequest for one that the model does not have."""
    size = model.tokenizer.vocab_size
    odd = next((index for index, token in enumerate(tokens) if token >= size), None)
    if odd is None:
        return token_ids(tokens)
    name = f"{place}[{odd}]"
    message = f"Invalid value for '{name}': expected a token id below {size}, but got {tokens[odd]}."
    raise BadRequest(message, param=name, code="invalid_value")


def text_of(model: Model, tokens: Sequence[int]) -> str:
    """All that they say, control tokens and broken characters among it."""
    return b"".join(model.tokenizer.pieces[token] for token in tokens).decode(errors="replace")


def offsets_of(model: Model, tokens: Sequence[int], text: str) -> list[int]:
    """Where in `text`, which became `tokens`, each of these begins, in characters. What a tokenizer puts before a text
    begins where the text does.
    """
    decoder, found, size = _decoder("replace"), [], 0
    for token in tokens:
        found.append(size)
        size += len(decoder.decode(model.tokenizer.pieces[token]))
    before = size + len(decoder.decode(b"", True)) - len(text)
    return [min(len(text), max(0, offset - max(0, before))) for offset in found]


def check_length(model: Model, tokens: TokenIds, place: str) -> None:
    """Raises ContextLengthExceeded for a text that the model cannot read as a whole."""
    most = model.card.context_length
    if len(tokens) > most:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {most} tokens. However, your {place} resulted in {len(tokens)}"
            f" tokens. Please reduce the length of the {place}.",
            param=place,
        )


def _some(tokens: TokenIds, place: str) -> TokenIds:
    if len(tokens) == 0:
        message = f"Invalid value for '{place}': expected at least one token, but got none."
        raise BadRequest(message, param=place, code="invalid_value")
    return tokens
