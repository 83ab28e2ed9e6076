"""Tokenizer of llama.cpp, the reference for other tokenizers."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from subnet.engines.llama_cpp.model import NativeModel


class NativeTokenizer:
    """Vocabulary of a GGUF file, loaded without weights. Used as a context manager. Raises SettingsError."""

    def __init__(self, path: Path) -> None:
        self._model = NativeModel(path, vocab_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.close()

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end generation."""
        return self._model.end_tokens

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """Return the token ids of the text, without a BOS token.

        With `parse_special`, the text of a control token becomes that token.
        """
        return self._model.tokenize(text, parse_special)

    def pieces(self) -> list[bytes]:
        """Return the bytes of each token."""
        return [self._model.piece(token) for token in range(self._model.vocab_size)]
