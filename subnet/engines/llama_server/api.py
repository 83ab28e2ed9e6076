"""llama-server's `/completion`: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md

Its frequency and presence penalties count the prompt too, as its repetition penalty does; OpenAI's do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from subnet.engines.remote.parameters import Parameter, seed_of, written
from subnet.engines.remote.pieces import LEAST_LOGPROB, Piece
from subnet.generation import Job, TokenLogprobs

SAMPLING = (
    Parameter("temperature", "temperature"),
    Parameter("top_p", "top_p"),
    Parameter("top_k", "top_k", lambda count: max(0, count)),
    Parameter("min_p", "min_p"),
    Parameter("typical_p", "typical_p"),
    Parameter("frequency_penalty", "frequency_penalty"),
    Parameter("presence_penalty", "presence_penalty"),
    Parameter("repetition_penalty", "repeat_penalty"),
    Parameter("logit_bias", "logit_bias", lambda biases: [[token, bias] for token, bias in biases.items()]),
    Parameter("ignore_eos", "ignore_eos"),
    # 0 is none at all; the logprob of the token itself comes with that of the likeliest.
    Parameter("logprobs", "n_probs", lambda width: 0 if width is None else max(1, width)),
)
"""Without max_tokens, seed, grammar and stop_tokens, which depend on more; min_tokens it does not know."""

NEUTRAL: dict[str, Any] = {
    # The order of our own engine. Samplers that are not named here are not used.
    "samplers": ["penalties", "temperature", "top_k", "typ_p", "top_p", "min_p"],
    "dynatemp_range": 0.0,
    "mirostat": 0,
    "min_keep": 0,
    "stop": [],
    "post_sampling_probs": False,
    "cache_prompt": True,
    "return_tokens": True,
}
# One bit less than it has: its largest seed stands for a random one.
_SEED_BITS = 31


class Probability(msgspec.Struct):
    """Of one token. `logprob` is None for minus infinity."""

    id: int
    logprob: float | None = None
    top_logprobs: tuple[Probability, ...] = ()

    def logprobs(self, width: int) -> TokenLogprobs:
        tops = self.top_logprobs[:width]
        return TokenLogprobs(
            _number(self.logprob), tuple(top.id for top in tops), tuple(_number(top.logprob) for top in tops)
        )


class Progress(msgspec.Struct):
    """How far the prompt was read; `cache` tokens of it were left from earlier requests."""

    cache: int = 0


class Part(Piece):
    """An event, or the whole of an answer that is not streamed. `tokens_predicted` are those up to here."""

    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    prompt_progress: Progress | None = None
    completion_probabilities: tuple[Probability, ...] = ()


def request(job: Job, choice: int, tokens: Sequence[int], left: int, context: int) -> dict[str, Any]:
    """For `left` more tokens of a choice that has `tokens`, where a slot has `context` tokens."""
    return {
        "prompt": [*job.prompt.tolist(), *tokens],
        "n_predict": left,
        "seed": seed_of(job.sampling.seed, choice, len(tokens), _SEED_BITS),
        "repeat_last_n": context,
        **written(SAMPLING, job.sampling),
        **NEUTRAL,
    }


def likeliest(prompt: Sequence[int], harmless: int, count: int) -> dict[str, Any]:
    """For how likely `count` tokens are after `prompt`. It tells that only with a token that is text: `harmless`."""
    return {
        **NEUTRAL,
        "prompt": list(prompt),
        "n_predict": 1,
        "temperature": 0,
        "logit_bias": [[harmless, 1e6]],
        "n_probs": count,
    }


def _number(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else max(logprob, LEAST_LOGPROB)
