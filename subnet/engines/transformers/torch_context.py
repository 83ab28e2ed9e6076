"""KV caches of a model of the transformers package."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from subnet.engines.stepping import Context, Row
from subnet.errors import SettingsError

# Tokens in a piece of a prompt. Every pass has a high fixed cost, because it reads all weights, so shorter pieces would
# make prompts many times slower. Longer ones would delay the other choices and cancellations.
_PIECE_LENGTH = 64
_BY_SEQUENCE = itemgetter(2)
# Parameter of a model's forward() for its cache: since transformers 5.24, and before.
_CACHE_PARAMETERS = ("cache", "past_key_values")


class TorchContext(Context):
    """One key-value cache per sequence.

    The sequences of a batch are processed one after the other. Results depend on how many tokens of a sequence are
    processed at once, so that is one, except in pieces of prompts. Raises SettingsError for a model without a key-value
    cache.
    """

    def __init__(self, model: Any, sequences: int) -> None:
        parameters = inspect.signature(model.forward).parameters
        names = [name for name in _CACHE_PARAMETERS if name in parameters]
        if not names or not _has_key_value_cache(model):
            raise SettingsError(f"{type(model).__name__} is not supported: it has no key-value cache")
        self._cache_parameter = names[0]
        self.vocab_size: int = model.config.get_text_config().vocab_size
        self._model = model
        self.piece_length = _PIECE_LENGTH
        self.max_rows = 1
        self.max_sequences = sequences
        self._forward_options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._caches = [self._new_cache() for _ in range(sequences)]
        self._lengths = [0] * sequences

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        logits_by_sequence: dict[int, NDArray[np.float32]] = {}
        for sequence, sequence_rows in groupby(sorted(rows, key=_BY_SEQUENCE), _BY_SEQUENCE):
            tokens, _, _, needs_logits = zip(*sequence_rows, strict=True)
            logits = self._forward(sequence, tokens)
            if needs_logits[-1]:
                logits_by_sequence[sequence] = logits
        return logits_by_sequence

    def _forward(self, sequence: int, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Process `tokens` in one forward pass and return the logits after the last one."""
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=self._model.device)
            arguments = {self._cache_parameter: self._caches[sequence], **self._forward_options}
            output = self._model(input_ids=ids, use_cache=True, **arguments)
            logits: NDArray[np.float32] = output.logits[0, -1].float().cpu().numpy()
        self._lengths[sequence] += len(tokens)
        return logits

    def truncate(self, sequence: int, length: int) -> int:
        excess = self._lengths[sequence] - length
        try:
            if length and excess:
                with torch.inference_mode():
                    self._caches[sequence].crop(-excess)
        except (RuntimeError, ValueError):  # a sliding window that has moved on, or a recurrent state
            length = 0
        if not length:
            self._caches[sequence] = self._new_cache()
        self._lengths[sequence] = length
        return length

    def copy(self, source: int, target: int) -> None:
        with torch.inference_mode():
            self._caches[target] = copy.deepcopy(self._caches[source])
        self._lengths[target] = self._lengths[source]

    def warm_up(self) -> None:
        """Process some tokens, several at once and one, and discard them, to detect a model that does not run.

        Raises whatever error the model raises.
        """
        for count in (16, 1):
            self._forward(0, [0] * count)
        self.truncate(0, 0)

    def close(self) -> None:
        """Free the model and all caches."""
        self._model = None
        self._caches = []

    def _new_cache(self) -> Any:
        return DynamicCache(config=self._model.config)


def _has_key_value_cache(model: Any) -> bool:
    """Return whether the model has a key-value cache.

    Models with recurrent state only, such as Mamba, process a prompt in pieces incorrectly.
    """
    layers = DynamicCache(config=model.config).layers
    return any(type(layer) is DynamicLayer for layer in layers) or all(hasattr(layer, "keys") for layer in layers)
