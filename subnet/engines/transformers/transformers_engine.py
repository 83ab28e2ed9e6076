"""The engine: a model of the transformers package in this process, driven token by token."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
from tokenizers import Tokenizer

from subnet.engines.stepping import SteppedEngine
from subnet.engines.transformers.pace import PassPace
from subnet.errors import SettingsError
from subnet.models.pretrained import describe_pretrained
from subnet.models.pretrained_files import DESCRIPTION, find_folder
from subnet.node_info import TokenizerArtefact

if TYPE_CHECKING:
    from subnet.engines.transformers.context import TorchContext

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


class TransformersEngine(SteppedEngine):
    """Serves one model in Hugging Face's form to up to `capacity` choices at once. These take turns, a token each:
    there is no batching, so that together they write about as fast as one.

    `reference` is a folder, or "owner/repo" on the hub. An answer can be taken up at any token, with the same draws as
    if it had never been cut; the logits that they are from are the same but for rounding, which depends on how many
    tokens were read at once, so that near ties may fall differently.

    `threads` defaults to all cores but one, which the node needs for its connections. `prompt_cache`: a prompt that
    begins as an earlier one did starts from what is left of that.
    """

    name = "transformers"

    def __init__(
        self,
        reference: str | Path,
        *,
        model_id: str | None = None,
        context_length: int | None = None,
        capacity: int = 4,
        threads: int | None = None,
        prompt_cache: bool = True,
        report: Callable[[str], None] = print,
    ) -> None:
        super().__init__(capacity)
        self._reference = reference
        self._model_id = model_id
        self._wanted_length = context_length
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._cache = prompt_cache
        self._report = report
        self._pace = PassPace()

    async def __aenter__(self) -> Self:
        """Raises SettingsError."""
        await asyncio.to_thread(self._load)
        self._start(self._context, self._context.vocab_size, self.card.stop_tokens, self._cache, self._pace)
        return self

    def _load(self) -> None:
        open_context = _opener()
        folder = find_folder(self._reference, (*DESCRIPTION, *_WEIGHTS), self._report)
        model_id = self._model_id or (None if folder == Path(self._reference).expanduser() else str(self._reference))
        card, self.artefact = describe_pretrained(folder, model_id)
        self.card = msgspec.structs.replace(card, context_length=self._context_length(card.context_length))
        self._tokenizer = Tokenizer.from_str(TokenizerArtefact.from_bytes(self.artefact).tokenizer_json or "")
        self._tokenizer.encode_special_tokens = True
        self._context = open_context(folder, self._threads, self.capacity, self._pace)

    def _context_length(self, trained: int) -> int:
        wanted = self._wanted_length
        if wanted is not None and not 0 < wanted <= trained:
            raise SettingsError(f"invalid context length {wanted}: expected 1 to {trained}, the model's maximum")
        return wanted or trained

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stepper.stop()
        self._context.close()

    def _tokenize(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


def _opener() -> Callable[[Path, int, int, PassPace], TorchContext]:
    try:
        # Only here, so that a missing package is an error in one line.
        from subnet.engines.transformers.model import open_context
    except ImportError as error:
        raise SettingsError(
            f"the transformers engine requires additional packages (pip install '.[transformers]'): {error}"
        ) from error
    return open_context
