"""Engine that runs a model of the transformers package in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
from tokenizers import Tokenizer

from subnet import threads
from subnet.engines.stepping import SteppingEngine
from subnet.errors import SettingsError
from subnet.models.pretrained import describe_pretrained
from subnet.models.pretrained_files import DESCRIPTION, find_folder
from subnet.node_info import TokenizerArtefact

if TYPE_CHECKING:
    from subnet.engines.transformers.torch_context import TorchContext

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


class TransformersEngine(SteppingEngine):
    """Runs a model in Hugging Face format for up to `capacity` choices at once.

    There is no batching: choices take turns, one token each, so that together they are about as fast as a single one.

    `reference` is a folder, or "owner/repo" on the Hugging Face hub. An answer can resume at any token, with the same
    random draws and logits as an uninterrupted one: how many tokens are processed at once depends on the job alone. On
    another type of processor or with another number of threads, near ties may resolve differently.

    `threads` defaults to all cores but one, which the node needs for its connections. With `prompt_cache`, a prompt
    reuses the prefix that it has in common with an earlier one. `report` is called with a line of text before a
    download.
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
        self._requested_length = context_length
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._prompt_cache = prompt_cache
        self._report = report

    async def __aenter__(self) -> Self:
        """Load the model, after downloading it if necessary. Raises SettingsError."""
        await threads.run("load", self._load)
        self._start(self._context, self._context.vocab_size, self.card.stop_tokens, self._prompt_cache)
        return self

    def _load(self) -> None:
        open_context = _import_open_context()
        folder = find_folder(self._reference, (*DESCRIPTION, *_WEIGHTS), self._report)
        model_id = self._model_id or (None if folder == Path(self._reference).expanduser() else str(self._reference))
        card, self.artefact = describe_pretrained(folder, model_id)
        self.card = msgspec.structs.replace(card, context_length=self._context_length(card.context_length))
        self._tokenizer = Tokenizer.from_str(TokenizerArtefact.from_bytes(self.artefact).tokenizer_json or "")
        self._tokenizer.encode_special_tokens = True
        self._context = open_context(folder, self._threads, self.capacity)

    def _context_length(self, trained: int) -> int:
        requested = self._requested_length
        if requested is not None and not 0 < requested <= trained:
            raise SettingsError(f"invalid context length {requested}: expected 1 to {trained}, the model's maximum")
        return requested or trained

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stepper.stop()
        self._context.close()

    def _tokenize(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


def _import_open_context() -> Callable[[Path, int, int], TorchContext]:
    try:
        # Imported here, so that a missing package can be reported in one line.
        from subnet.engines.transformers.torch_model import open_context
    except ImportError as error:
        raise SettingsError(
            f"the transformers engine requires additional packages (pip install '.[transformers]'): {error}"
        ) from error
    return open_context
