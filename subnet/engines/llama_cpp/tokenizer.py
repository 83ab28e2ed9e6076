"""llama.cpp's own tokenizer: the reference that ours is tested against."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from subnet.engines.llama_cpp.model import NativeModel


class NativeTokenizer:
    """Loads a GGUF file's vocabulary, without weights. Used as a context manager. Raises SettingsError."""

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
        return self._model.end_tokens

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """Token ids of the text, without a beginning-of-sequence token. `parse_special`: control tokens' texts
        become control tokens."""
        return self._model.tokenize(text, parse_special)
