"""SGLang's `/generate`.

https://docs.sglang.ai/basic_usage/sampling_params.html
https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/managers/io_struct.py

A seed counts on servers that were started with --enable-deterministic-inference, and is of no effect on others.
Logprobs are those after temperature, unless the server has SGLANG_RETURN_ORIGINAL_LOGPROB set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from subnet.engines.remote.parameters import Parameter, above_zero, seed_of, written
from subnet.engines.remote.pieces import LEAST_LOGPROB, Piece
from subnet.errors import InvalidRequest
from subnet.generation import Grammar, Job, TokenLogprobs

T = TypeVar("T")

SAMPLING = (
    Parameter("temperature", "temperature"),
    Parameter("top_p", "top_p", above_zero),
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
"""Without max_tokens, seed, grammar and logprobs, which depend on more; typical_p it does not know."""

NEUTRAL: dict[str, Any] = {"n": 1, "stop": [], "skip_special_tokens": False}
_GRAMMARS = {"json_schema": "json_schema", "regex": "regex"}
_SEED_BITS = 31
_LARGEST_REPETITION = 2.0

Logprob = tuple[float | None, int, Any]
"""Log-probability, token, text."""


class FinishReason(msgspec.Struct):
    """`type` is stop, length or abort. A stop was `matched` by a token id; an abort has a `message`."""

    type: str
    matched: Any = None
    message: str = ""
    err_type: str | None = None


class Meta(msgspec.Struct):
    """`completion_tokens` are those up to here."""

    finish_reason: FinishReason | None = None
    completion_tokens: int = 0
    cached_tokens: int = 0
    output_token_logprobs: list[Logprob] | None = None
    output_top_logprobs: list[list[Logprob] | None] | None = None


class Output(Piece):
    """An event. Lists have all tokens up to here, or the new ones alone, as the server and its version like it."""

    output_ids: tuple[int, ...] | None = None
    meta_info: Meta = msgspec.field(default_factory=Meta)


def request(job: Job, choice: int, most: int) -> dict[str, Any]:
    """For `most` tokens of a choice. Raises InvalidRequest for what SGLang refuses and others do not."""
    sampling = job.sampling
    if sampling.repetition_penalty > _LARGEST_REPETITION:
        raise InvalidRequest(
            f"Invalid value for 'repetition_penalty': expected at most {_LARGEST_REPETITION:g} for this model, but got "
            f"{sampling.repetition_penalty}.",
            param="repetition_penalty",
        )
    return {
        "input_ids": job.prompt.tolist(),
        "sampling_params": {
            "max_new_tokens": most,
            "sampling_seed": seed_of(sampling.seed, choice, bits=_SEED_BITS),
            **written(SAMPLING, sampling),
            **NEUTRAL,
            **_limits(sampling.grammar),
        },
        "stream": True,
        "return_logprob": sampling.logprobs is not None,
        "top_logprobs_num": sampling.logprobs or 0,
        "return_text_in_logprobs": False,
    }


def _limits(grammar: Grammar | None) -> dict[str, Any]:
    return {} if grammar is None else {_GRAMMARS[grammar.kind]: grammar.text}


class Increments:
    """What is new in each event, whether its lists have all up to it or what is new alone."""

    def __init__(self) -> None:
        self._seen = 0

    def decode(self, output: Output, width: int | None) -> tuple[list[int], list[TokenLogprobs] | None]:
        """New ids, and their logprobs where `width` of the likeliest are wanted."""
        meta = output.meta_info
        ids = self._new(output.output_ids or (), meta.completion_tokens)
        if width is None:
            self._seen += len(ids)
            return ids, None
        own = self._new(meta.output_token_logprobs or (), meta.completion_tokens)
        tops = self._new(meta.output_top_logprobs or (), meta.completion_tokens)
        # Ids of which the logprobs are still on their way come again with the next event.
        ids = ids[: len(own)]
        self._seen += len(ids)
        filled = [*tops, *([None] * (len(own) - len(tops)))]
        return ids, [_scored(each, top, width) for each, top, _ in zip(own, filled, ids, strict=False)]

    def _new(self, items: Sequence[T], total: int) -> list[T]:
        alone = self._seen > 0 and len(items) == total - self._seen
        return list(items) if alone else list(items[self._seen :])


def _scored(own: Logprob, tops: Sequence[Logprob] | None, width: int) -> TokenLogprobs:
    likeliest = sorted(((_number(value), token) for value, token, _ in tops or ()), key=lambda item: -item[0])[:width]
    return TokenLogprobs(
        _number(own[0]), tuple(token for _, token in likeliest), tuple(value for value, _ in likeliest)
    )


def _number(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else max(logprob, LEAST_LOGPROB)
