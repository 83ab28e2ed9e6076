"""vLLM's `/v1/completions`, with what it adds to OpenAI's.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#completions-api
https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/completion/protocol.py

Logprobs are those before temperature and penalties, unless the server was started with another --logprobs-mode; more
than --max-logprobs, 20 by default, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from subnet.engines.remote.parameters import Parameter, above_zero, seed_of, written
from subnet.engines.remote.pieces import LEAST_LOGPROB, Piece
from subnet.errors import WireError
from subnet.generation import Grammar, Job, TokenLogprobs

SAMPLING = (
    Parameter("temperature", "temperature"),
    Parameter("top_p", "top_p", above_zero),
    Parameter("top_k", "top_k", lambda count: max(0, count)),
    Parameter("min_p", "min_p"),
    Parameter("frequency_penalty", "frequency_penalty"),
    Parameter("presence_penalty", "presence_penalty"),
    Parameter("repetition_penalty", "repetition_penalty"),
    Parameter("logit_bias", "logit_bias", lambda biases: {str(token): bias for token, bias in biases.items()} or None),
    Parameter("min_tokens", "min_tokens"),
    Parameter("stop_tokens", "stop_token_ids", list),
    Parameter("ignore_eos", "ignore_eos"),
    Parameter("logprobs", "logprobs"),
)
"""Without max_tokens, seed and grammar, which depend on more; typical_p it does not know."""

NEUTRAL: dict[str, Any] = {
    "n": 1,
    "stop": [],
    "echo": False,
    "add_special_tokens": False,
    "skip_special_tokens": False,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}
_GRAMMARS = {"json_schema": "json", "regex": "regex"}
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?!\.?dev)")


class Logprobs(msgspec.Struct):
    """The keys of `top_logprobs` are tokens, written "token_id:7"; the one that was drawn is always among them."""

    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] = []


class Choice(msgspec.Struct):
    """Of an event. `token_ids` are the new ones, with that which ends the answer."""

    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Details(msgspec.Struct):
    cached_tokens: int | None = 0


class Usage(msgspec.Struct):
    """`prompt_tokens_details` is there if the server was started with --enable-prompt-tokens-details."""

    prompt_tokens_details: Details | None = None


class Chunk(Piece):
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None


def request(model: str, job: Job, choice: int, most: int, version: tuple[int, ...] | None) -> dict[str, Any]:
    """For `most` tokens of a choice, of a server of that `version`."""
    return {
        "model": model,
        "prompt": job.prompt.tolist(),
        "max_tokens": most,
        "seed": seed_of(job.sampling.seed, choice),
        **written(SAMPLING, job.sampling),
        **NEUTRAL,
        **_limits(job.sampling.grammar, version),
    }


def _limits(grammar: Grammar | None, version: tuple[int, ...] | None) -> dict[str, Any]:
    """The fields for a grammar: before version 0.11 each kind had one of its own."""
    if grammar is None:
        return {}
    kind = _GRAMMARS[grammar.kind]
    if version is not None and version < (0, 11):
        return {f"guided_{kind}": grammar.text}
    return {"structured_outputs": {kind: grammar.text}}


def version_of(text: str) -> tuple[int, ...] | None:
    """Of "0.10.2"; None for a build from between versions, which may be any."""
    found = _VERSION.match(text)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def scores(logprobs: Logprobs, width: int) -> list[TokenLogprobs]:
    """Of each token of an event. Raises WireError."""
    tops = logprobs.top_logprobs or [None] * len(logprobs.token_logprobs)
    try:
        return [
            scored(LEAST_LOGPROB if own is None else own, _by_token(top or {}), width)
            for own, top in zip(logprobs.token_logprobs, tops, strict=True)
        ]
    except ValueError as error:
        raise WireError(f"invalid logprobs from vLLM: {error}") from error


def scored(own: float, tops: Mapping[int, float], width: int) -> TokenLogprobs:
    """The `width` likeliest of `tops`; the token that was drawn is not always one of them."""
    likeliest = sorted(tops.items(), key=lambda item: -item[1])[:width]
    return TokenLogprobs(own, tuple(token for token, _ in likeliest), tuple(value for _, value in likeliest))


def _by_token(by_name: Mapping[str, float]) -> dict[int, float]:
    return {int(name.removeprefix("token_id:")): value for name, value in by_name.items()}
