"""Prompts and embedding inputs in OpenAI's four forms: a text, a list of texts, token ids, lists of token ids."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from adapter.api.common.sampling import TokenId

MAX_INPUTS = 2048

Input = str | Annotated[list[str | TokenId | Annotated[list[TokenId], Meta(min_length=1)]], Meta(min_length=1)]
"""All items of a list have the same type, which `check_input` verifies."""


def split_inputs(given: Input) -> list[str | list[int]]:
    """Return the inputs, each a text or a list of token ids."""
    if isinstance(given, str):
        return [given]
    ids = [one for one in given if isinstance(one, int)]
    return [ids] if ids else [one for one in given if not isinstance(one, int)]


def count_inputs(given: Input) -> int:
    """Return the number of inputs."""
    return 1 if isinstance(given, str) or isinstance(given[0], int) else len(given)


def has_token_ids(given: Input) -> bool:
    """Return whether the inputs are token ids instead of texts."""
    return not isinstance(given, str) and not isinstance(given[0], str)


def first_type_mismatch(given: Input) -> int | None:
    """Return the index of the first item whose type differs from that of item 0; None if there is none."""
    return next((index for index, one in enumerate(given) if type(one) is not type(given[0])), None)
