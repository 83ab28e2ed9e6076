"""Text to go on from or to embed, in one of OpenAI's four forms: a text, texts, token ids, lists of token ids."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from adapter.api.common.sampling import TokenId

MAX_INPUTS = 2048

Input = str | Annotated[list[str | TokenId | Annotated[list[TokenId], Meta(min_length=1)]], Meta(min_length=1)]
"""One kind in one list (`read_*` sees to it)."""


def split_inputs(given: Input) -> list[str | list[int]]:
    """The inputs, each a text or its token ids."""
    if isinstance(given, str):
        return [given]
    ids = [one for one in given if isinstance(one, int)]
    return [ids] if ids else [one for one in given if not isinstance(one, int)]


def count_inputs(given: Input) -> int:
    """How many inputs these are."""
    return 1 if isinstance(given, str) or isinstance(given[0], int) else len(given)


def odd_one(given: Input) -> int | None:
    """The index of the first that is of another kind than the first."""
    return next((index for index, one in enumerate(given) if type(one) is not type(given[0])), None)
