"""Sequences of tokens that a model of the transformers package has read."""

from __future__ import annotations

import copy
import inspect
import time
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
from subnet.engines.transformers.pace import FIRST, PassPace
from subnet.errors import SettingsError

_BY_SEQUENCE = itemgetter(2)
# What a model calls its cache, since transformers 5.24 and before.
_CACHE = ("cache", "past_key_values")


class TorchContext(Context):
    """One cache of keys and values per sequence, which grows as it is read. Sequences are read one after the other, and
    `pace` hears how long each took.

    Raises SettingsError for a model that remembers in another way.
    """

    def __init__(self, model: Any, sequences: int, pace: PassPace) -> None:
        takes = inspect.signature(model.forward).parameters
        names = [name for name in _CACHE if name in takes]
        if not names or not _looks_back(model):
            raise SettingsError(f"{type(model).__name__} is not supported: it has no key-value cache")
        self._cache = names[0]
        self.vocab_size: int = model.config.get_text_config().vocab_size
        self._model = model
        self._pace = pace
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self._caches = [self._empty() for _ in range(sequences)]
        self._held = [0] * sequences

    def decode(self, rows: Sequence[Row]) -> dict[int, NDArray[np.float32]]:
        found: dict[int, NDArray[np.float32]] = {}
        for sequence, part in groupby(sorted(rows, key=_BY_SEQUENCE), _BY_SEQUENCE):
            tokens, _, _, wanted = zip(*part, strict=True)
            logits = self._read(sequence, tokens)
            if wanted[-1]:
                found[sequence] = logits
        return found

    def _read(self, sequence: int, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits after the last token."""
        started = time.monotonic()
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=self._model.device)
            given = {self._cache: self._caches[sequence], **self._options}
            read = self._model(input_ids=ids, use_cache=True, **given)
            logits: NDArray[np.float32] = read.logits[0, -1].float().cpu().numpy()
        self._pace.passed(len(tokens), time.monotonic() - started)
        self._held[sequence] += len(tokens)
        return logits

    def keep(self, sequence: int, length: int) -> int:
        surplus = self._held[sequence] - length
        try:
            if length and surplus:
                with torch.inference_mode():
                    self._caches[sequence].crop(-surplus)
        except (RuntimeError, ValueError):  # a window that has slid on, or a state that has forgotten its past
            length = 0
        if not length:
            self._caches[sequence] = self._empty()
        self._held[sequence] = length
        return length

    def copy(self, source: int, target: int) -> None:
        with torch.inference_mode():
            self._caches[target] = copy.deepcopy(self._caches[source])
        self._held[target] = self._held[source]

    def try_out(self) -> None:
        """Read a few tokens and forget them: what cannot work fails here, and `pace` has something to go by. Raises
        whatever the model does."""
        # The first pass takes longer, and is none that `pace` heeds.
        for count in (2, 1, 1, FIRST):
            self._read(0, [0] * count)
        self.keep(0, 0)

    def close(self) -> None:
        """Let go of the model and of all that it has read."""
        self._model = None
        self._caches = []

    def _empty(self) -> Any:
        return DynamicCache(config=self._model.config)


def _looks_back(model: Any) -> bool:
    """Whether there is more to its memory than states, as Mamba's is: a prompt in pieces is read wrongly by those."""
    layers = DynamicCache(config=model.config).layers
    return any(type(layer) is DynamicLayer for layer in layers) or all(hasattr(layer, "keys") for layer in layers)
