"""Tokenization of prompts and other inputs that are not conversations."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence

import numpy as np

from adapter.errors import BadRequest
from adapter.generation.model_registry import Model
from adapter.generation.param_names import renamed_params
from subnet.errors import ContextLengthExceeded
from subnet.tensors import TokenIds, token_ids

_decoder = getincrementaldecoder("utf-8")
# Number of token ids that are converted at once, while other threads wait.
_PART = 16384


def tokenize_prompt(model: Model, prompt: str | Sequence[int], param: str) -> TokenIds:
    """Return the tokens of a prompt for the model to continue, given as text or as token ids.

    Text of control tokens, such as `<|im_end|>`, becomes these tokens, as the client controls the whole prompt.
    `param` is the path of the prompt in the request, for errors. Raises BadRequest for token ids that the model does
    not have and for an empty result, and InvalidRequest for text that cannot be tokenized.
    """
    if not isinstance(prompt, str):
        return check_token_ids(model, prompt, param)
    return _require_tokens(add_bos(model, tokenize_with_control_tokens(model, prompt, param)), param)


def tokenize_text(model: Model, text: str | Sequence[int], param: str) -> TokenIds:
    """Return the tokens of an input that is not continued, such as a text to embed.

    Text of control tokens stays text. Raises the errors of `tokenize_prompt`.
    """
    if not isinstance(text, str):
        return check_token_ids(model, text, param)
    with renamed_params({"messages": param}):
        return _require_tokens(model.tokenizer.encode_with_bos(text), param)


def tokenize_with_control_tokens(model: Model, text: str, param: str) -> TokenIds:
    """Return the tokens of `text` and of control tokens written in it; none is added. Raises InvalidRequest."""
    with renamed_params({"messages": param}):
        return model.tokenizer.encode_prompt(text)


def add_bos(model: Model, tokens: TokenIds) -> TokenIds:
    """Return `tokens` with the model's beginning-of-sequence token first, if it requires one and it is missing."""
    bos = model.tokenizer.encode_with_bos("")
    return tokens if np.array_equal(tokens[: len(bos)], bos) else np.concatenate([bos, tokens])


def check_token_ids(model: Model, tokens: Sequence[int], param: str) -> TokenIds:
    """Return `tokens` as an array. Raises BadRequest for an id that the model does not have."""
    size = model.tokenizer.vocab_size
    index = next((index for index, token in enumerate(tokens) if token >= size), None)
    if index is None:
        return np.concatenate([token_ids(tokens[start : start + _PART]) for start in range(0, len(tokens) or 1, _PART)])
    name = f"{param}[{index}]"
    message = f"Invalid value for '{name}': expected a token id below {size}, but got {tokens[index]}."
    raise BadRequest(message, param=name, code="invalid_value")


def decode_tokens(model: Model, tokens: Sequence[int]) -> str:
    """Return the text of `tokens`, including control tokens. Invalid UTF-8 is replaced by U+FFFD."""
    return b"".join(model.tokenizer.pieces[token] for token in tokens).decode(errors="replace")


def token_offsets(model: Model, tokens: Sequence[int], text: str) -> list[int]:
    """Return the offset in `text`, in characters, at which each of its `tokens` starts.

    Tokens that the tokenizer adds before the text have offset 0.
    """
    decoder, starts, size = _decoder("replace"), [], 0
    for token in tokens:
        starts.append(size)
        size += len(decoder.decode(model.tokenizer.pieces[token]))
    added = max(0, size + len(decoder.decode(b"", True)) - len(text))
    return [min(len(text), max(0, start - added)) for start in starts]


def list_of(tokens: TokenIds) -> list[int]:
    """Return the token ids as a list. It is made in parts, between which other threads can run."""
    return [token for start in range(0, len(tokens), _PART) for token in tokens[start : start + _PART].tolist()]


def check_length(model: Model, tokens: TokenIds, param: str) -> None:
    """Raise ContextLengthExceeded if `tokens` are more than the model's context length."""
    limit = model.card.context_length
    if len(tokens) > limit:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {limit} tokens. However, your {param} resulted in {len(tokens)}"
            f" tokens. Please reduce the length of the {param}.",
            param=param,
        )


def _require_tokens(tokens: TokenIds, param: str) -> TokenIds:
    if len(tokens) == 0:
        message = f"Invalid value for '{param}': expected at least one token, but got none."
        raise BadRequest(message, param=param, code="invalid_value")
    return tokens
