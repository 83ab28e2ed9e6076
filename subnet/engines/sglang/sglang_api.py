"""Requests and responses of SGLang's `/generate`.

https://docs.sglang.ai/basic_usage/sampling_params.html
https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/managers/io_struct.py

A seed has an effect only on servers started with --enable-deterministic-inference. Logprobs are computed after
temperature, unless the server has SGLANG_RETURN_ORIGINAL_LOGPROB set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.draws import draw_seed
from subnet.engines.remote.remote_model import Model
from subnet.engines.remote.sampling_params import Parameter, nonzero, sampling_params
from subnet.engines.remote.stream_events import StreamEvent
from subnet.errors import InvalidRequest
from subnet.generation import MIN_LOGPROB, Grammar, Job, TokenLogprobs

T = TypeVar("T")

SAMPLING = (
    Parameter("temperature", "temperature"),
    Parameter("top_p", "top_p", nonzero),
    Parameter("top_k", "top_k", lambda count: count if count > 0 else -1),
    Parameter("min_p", "min_p"),
    Parameter("frequency_penalty", "frequency_penalty"),
    Parameter("presence_penalty", "presence_penalty"),
    Parameter("repetition_penalty", "repetition_penalty"),
    Parameter("logit_bias", "logit_bias", lambda biases: {str(token): bias for token, bias in biases.items()} or None),
    Parameter("min_tokens", "min_new_tokens"),
    Parameter("stop_tokens", "stop_token_ids", list),
    Parameter("ignore_eos", "ignore_eos"),
)
"""All fields of Sampling but max_tokens, seed, grammar and logprobs, which are set separately, and typical_p, which is
unsupported."""

NEUTRAL: dict[str, Any] = {"n": 1, "stop": [], "skip_special_tokens": False}
_GRAMMARS = {"json_schema": "json_schema", "regex": "regex"}
_SEED_BITS = 31
_MAX_REPETITION_PENALTY = 2.0

Logprob = tuple[float | None, int, Any]
"""Log-probability, token, text."""


class FinishReason(msgspec.Struct):
    """End of an answer. `type` is stop, length or abort; `matched` is the stop token's id, `message` an error."""

    type: str
    matched: Any = None
    message: str = ""
    err_type: str | None = None


class Meta(msgspec.Struct):
    """Metadata of an event. `completion_tokens` is the number of tokens so far."""

    finish_reason: FinishReason | None = None
    completion_tokens: int = 0
    cached_tokens: int = 0
    output_token_logprobs: list[Logprob] | None = None
    output_top_logprobs: list[list[Logprob] | None] | None = None


class GenerateEvent(StreamEvent):
    """Event of a stream. Depending on the server's version, its lists have all tokens so far or only the new ones."""

    output_ids: tuple[int, ...] | None = None
    meta_info: Meta = msgspec.field(default_factory=Meta)


def build_request(model: Model, job: Job, output: ChoiceOutput) -> dict[str, Any]:
    """Return the request body for the rest of one choice.

    Raises InvalidRequest for a repetition penalty that other engines support, but SGLang does not.
    """
    sampling = job.sampling
    if sampling.repetition_penalty > _MAX_REPETITION_PENALTY:
        raise InvalidRequest(
            f"Invalid value for 'repetition_penalty': expected at most {_MAX_REPETITION_PENALTY:g} for this model, "
            f"but got {sampling.repetition_penalty}.",
            param="repetition_penalty",
        )
    return {
        "input_ids": job.prompt.tolist(),
        "sampling_params": {
            "max_new_tokens": output.remaining,
            "sampling_seed": draw_seed(
                sampling, output, positional=model.capabilities.positional_draws, bits=_SEED_BITS
            ),
            **sampling_params(SAMPLING, sampling),
            **NEUTRAL,
            **_grammar_fields(sampling.grammar),
        },
        "stream": True,
        "return_logprob": sampling.logprobs is not None,
        "top_logprobs_num": sampling.logprobs or 0,
        "return_text_in_logprobs": False,
    }


def _grammar_fields(grammar: Grammar | None) -> dict[str, Any]:
    return {} if grammar is None else {_GRAMMARS[grammar.kind]: grammar.text}


class IncrementDecoder:
    """Extracts the new tokens of each event, whether its lists are cumulative or incremental."""

    def __init__(self) -> None:
        self._token_count = 0

    def decode(self, event: GenerateEvent, width: int | None) -> tuple[list[int], list[TokenLogprobs] | None]:
        """Return new ids, and, unless `width` is None, their logprobs with `width` alternatives."""
        meta = event.meta_info
        ids = self._new_items(event.output_ids or (), meta.completion_tokens)
        if width is None:
            self._token_count += len(ids)
            return ids, None
        own_logprobs = self._new_items(meta.output_token_logprobs or (), meta.completion_tokens)
        top_logprobs = self._new_items(meta.output_top_logprobs or (), meta.completion_tokens)
        # Ids whose logprobs have not arrived yet are repeated in the next event.
        ids = ids[: len(own_logprobs)]
        self._token_count += len(ids)
        padded_tops = [*top_logprobs, *([None] * (len(own_logprobs) - len(top_logprobs)))]
        return ids, [
            _to_logprobs(own, tops, width) for own, tops, _ in zip(own_logprobs, padded_tops, ids, strict=False)
        ]

    def _new_items(self, items: Sequence[T], total: int) -> list[T]:
        is_incremental = self._token_count > 0 and len(items) == total - self._token_count
        return list(items) if is_incremental else list(items[self._token_count :])


def _to_logprobs(own: Logprob, tops: Sequence[Logprob] | None, width: int) -> TokenLogprobs:
    likeliest = sorted(((_clamp(value), token) for value, token, _ in tops or ()), key=lambda item: -item[0])[:width]
    return TokenLogprobs(_clamp(own[0]), tuple(token for _, token in likeliest), tuple(value for value, _ in likeliest))


def _clamp(logprob: float | None) -> float:
    return MIN_LOGPROB if logprob is None else max(logprob, MIN_LOGPROB)
