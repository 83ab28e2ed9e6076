"""Token sampling from logits.

Randomness is counter-based: it is a hash of (seed, choice, position), so a run that is resumed at any position draws
the same tokens as an uninterrupted one. Order of operations: bias, penalties, bans, temperature, top_k, typical_p,
top_p, min_p. Ties between logits go to the lower token id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subnet.engines.sampling.truncation import Ids, top_k, truncate
from subnet.errors import EngineFailed
from subnet.generation import MIN_LOGPROB, Sampling, TokenLogprobs

Logits = NDArray[np.float32]

_MASK = (1 << 64) - 1
_BLOCK_SIZE = 256


class Sampler:
    """Draws the tokens of one choice.

    `output` is the tokens that the choice already has, `end_tokens` the model's end-of-generation tokens. Penalties
    follow the usual definitions: the repetition penalty counts prompt and output, frequency and presence penalties the
    output (https://platform.openai.com/docs/guides/text-generation#frequency-and-presence-penalties).
    """

    def __init__(
        self,
        sampling: Sampling,
        choice: int,
        prompt: Iterable[int],
        output: Iterable[int],
        end_tokens: Collection[int],
        vocab_size: int,
    ) -> None:
        self._sampling = sampling
        self._stream_key = splitmix64((sampling.seed or 0) ^ splitmix64(choice))
        self._end_ids = np.array(sorted(end_tokens), np.intp)
        # A tokenizer may have more tokens than the model has logits for.
        stop_tokens = {token for token in sampling.stop_tokens if 0 <= token < vocab_size}
        self._stop_ids = np.array(sorted({*end_tokens, *stop_tokens}), np.intp)
        self._bias_ids = np.array(list(sampling.logit_bias), np.intp)
        self._bias = np.array(list(sampling.logit_bias.values()), np.float32)
        self._has_penalties = bool(
            sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0
        )
        self._counts = np.zeros(vocab_size if self._has_penalties else 0, np.float32)
        self._seen = np.zeros(vocab_size if self._has_penalties else 0, np.bool_)
        self._position = 0
        if self._has_penalties:
            self._seen[np.fromiter(prompt, np.intp)] = True
        for token in output:
            self.append(token)

    def append(self, token: int) -> None:
        """Record that `token` is the next token of the choice."""
        self._position += 1
        if self._has_penalties:
            self._counts[token] += 1
            self._seen[token] = True

    def draw(self, logits: Logits, allowed: NDArray[np.bool_] | None = None) -> int | None:
        """Return the next token, or None if all tokens are excluded.

        `logits` is float32, shape (vocab,), and not modified; `allowed` is a mask of the same shape. Raises
        EngineFailed if a logit is NaN.
        """
        logits = self._adjust(logits, allowed)
        likeliest = int(logits.argmax())
        peak = logits[likeliest]
        if np.isnan(peak):
            raise EngineFailed("the model returned NaN logits")
        if peak == -np.inf:
            return None
        if self._sampling.temperature == 0:
            return likeliest
        weights = _weights(logits, peak, self._sampling.temperature)
        return _pick_token(weights, truncate(weights, self._sampling), self._uniform())

    def _uniform(self) -> float:
        return float(splitmix64(self._stream_key ^ self._position) >> 11) * 2.0**-53

    def _adjust(self, logits: Logits, allowed: NDArray[np.bool_] | None) -> Logits:
        sampling = self._sampling
        logits = np.where(allowed, logits, np.float32(-np.inf)) if allowed is not None else logits.copy()
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
        if self._has_penalties:
            self._apply_penalties(logits)
        if sampling.ignore_eos:
            logits[self._end_ids] = -np.inf
        if self._position < sampling.min_tokens:
            logits[self._stop_ids] = -np.inf
        return logits

    def _apply_penalties(self, logits: Logits) -> None:
        sampling = self._sampling
        ids = np.flatnonzero(self._seen)
        seen, counts = logits[ids], self._counts[ids]
        repetition = np.float32(sampling.repetition_penalty)
        seen = np.where(seen > 0, seen / repetition, seen * repetition)
        seen -= np.float32(sampling.frequency_penalty) * counts
        seen -= np.float32(sampling.presence_penalty) * (counts > 0)
        logits[ids] = seen


def _weights(logits: Logits, peak: np.float32, temperature: float) -> NDArray[np.float32]:
    with np.errstate(over="ignore", under="ignore"):
        scaled: NDArray[np.float32] = np.exp((logits - peak) / np.float32(max(temperature, 1e-6)))
    return scaled


def _pick_token(weights: NDArray[np.float32], ids: Ids | None, uniform: float) -> int:
    """Return the token whose interval of the cumulative distribution, in order of ids, contains `uniform`."""
    if ids is not None:
        return int(ids[_locate(weights[ids], uniform)[0]])
    # Blocks first, because a cumulative sum over the whole vocabulary in float64 takes longer than everything else.
    starts = np.arange(0, len(weights), _BLOCK_SIZE)
    block, remainder = _locate(np.add.reduceat(weights, starts, dtype=np.float64), uniform)
    start = block * _BLOCK_SIZE
    return start + _locate(weights[start : start + _BLOCK_SIZE], remainder)[0]


def _locate(weights: NDArray[np.floating[Any]], uniform: float) -> tuple[int, float]:
    """Return the index whose interval contains `uniform`, and the position within that interval, from 0 to 1."""
    edges = np.cumsum(weights, dtype=np.float64)
    target = uniform * edges[-1]
    index = min(int(np.searchsorted(edges, target, side="right")), int(np.flatnonzero(weights)[-1]))
    return index, float((target - (edges[index] - weights[index])) / weights[index])


def token_logprobs(logits: Logits, token: int, width: int) -> TokenLogprobs:
    """Return the log-probabilities of `token` and of the `width` most likely tokens, by the softmax of `logits`."""
    peak = float(logits.max())
    norm = peak + float(np.log(np.exp(logits - np.float32(peak)).sum(dtype=np.float64)))
    tops = top_k(logits, min(width, len(logits))) if width else np.empty(0, np.intp)
    tops = tops[np.argsort(-logits[tops], kind="stable")]
    top_logprobs = np.maximum(logits[tops].astype(np.float64) - norm, MIN_LOGPROB)
    return TokenLogprobs(
        max(float(logits[token]) - norm, MIN_LOGPROB), tuple(tops.tolist()), tuple(top_logprobs.tolist())
    )


def splitmix64(value: int) -> int:
    """Hash an integer to 64 bits by one step of splitmix64 (https://prng.di.unimi.it/splitmix64.c)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
