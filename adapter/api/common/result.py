"""Work that needs no node, such as the tokenization of a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from adapter.decode.usage import NO_USAGE, Usage
from adapter.generation.base import Work
from subnet.node_info import ModelCard

T = TypeVar("T")


class Result(Work, Generic[T]):
    """Work of a model that is done already. `build` returns its result, of about `size` bytes of JSON."""

    def __init__(self, card: ModelCard, build: Callable[[], T], size: int = 0) -> None:
        self._card = card
        self.build = build
        self.size = size

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def usage(self) -> Usage:
        return NO_USAGE
