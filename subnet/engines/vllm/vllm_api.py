"""Requests and responses of vLLM's `/v1/completions`, with its extensions of OpenAI's API.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#completions-api
https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/completion/protocol.py

Logprobs are computed before temperature and penalties, unless the server was started with another --logprobs-mode. More
than --max-logprobs, 20 by default, are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.draws import draw_seed
from subnet.engines.remote.remote_model import Model
from subnet.engines.remote.sampling_params import Parameter, nonzero, sampling_params
from subnet.engines.remote.stream_events import StreamEvent
from subnet.errors import WireError
from subnet.generation import MIN_LOGPROB, Grammar, Job, TokenLogprobs

SAMPLING = (
    Parameter("temperature", "temperature"),
    Parameter("top_p", "top_p", nonzero),
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
"""All fields of Sampling but max_tokens, seed and grammar, set separately, and typical_p, which is unsupported."""

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


class Logprobs(msgspec.Struct):
    """Logprobs of an event. The keys of `top_logprobs` are "token_id:7"; they include the token that was drawn."""

    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] = []


class Choice(msgspec.Struct):
    """Choice in an event. `token_ids` are the new tokens, including the one that ends the answer."""

    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int | None = 0


class Usage(msgspec.Struct):
    """Usage of a request. Has details if the server was started with --enable-prompt-tokens-details."""

    prompt_tokens_details: PromptTokensDetails | None = None


class Chunk(StreamEvent):
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None


def build_request(model: Model, job: Job, output: ChoiceOutput, version: tuple[int, ...] | None) -> dict[str, Any]:
    """Return the request body for the rest of one choice, for a server of version `version`."""
    return {
        "model": model.name,
        "prompt": job.prompt.tolist(),
        "max_tokens": output.remaining,
        "seed": draw_seed(job.sampling, output, positional=model.capabilities.positional_draws),
        **sampling_params(SAMPLING, job.sampling),
        **NEUTRAL,
        **_grammar_fields(job.sampling.grammar, version),
    }


def _grammar_fields(grammar: Grammar | None, version: tuple[int, ...] | None) -> dict[str, Any]:
    """Return the fields for a grammar. Before version 0.11 each kind of grammar had its own field."""
    if grammar is None:
        return {}
    kind = _GRAMMARS[grammar.kind]
    if version is not None and version < (0, 11):
        return {f"guided_{kind}": grammar.text}
    return {"structured_outputs": {kind: grammar.text}}


def convert_logprobs(logprobs: Logprobs, width: int) -> list[TokenLogprobs]:
    """Return the logprobs of each token of an event, with `width` alternatives. Raises WireError if malformed."""
    tops = logprobs.top_logprobs or [None] * len(logprobs.token_logprobs)
    try:
        return [
            rank_logprobs(MIN_LOGPROB if logprob is None else logprob, _by_token(top or {}), width)
            for logprob, top in zip(logprobs.token_logprobs, tops, strict=True)
        ]
    except ValueError as error:
        raise WireError(f"invalid logprobs from vLLM: {error}") from error


def rank_logprobs(logprob: float, tops: Mapping[int, float], width: int) -> TokenLogprobs:
    """Return logprobs with the `width` most likely of `tops`; the drawn token is not necessarily among them."""
    likeliest = sorted(tops.items(), key=lambda item: -item[1])[:width]
    return TokenLogprobs(logprob, tuple(token for token, _ in likeliest), tuple(value for _, value in likeliest))


def _by_token(by_name: Mapping[str, float]) -> dict[int, float]:
    return {int(name.removeprefix("token_id:")): value for name, value in by_name.items()}
