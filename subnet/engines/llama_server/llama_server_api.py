"""Requests and responses of llama-server's `/completion`.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md

Unlike OpenAI's, its frequency and presence penalties count the prompt, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.draws import draw_seed
from subnet.engines.remote.sampling_params import Parameter, sampling_params
from subnet.engines.remote.stream_events import StreamEvent
from subnet.generation import MIN_LOGPROB, Job, TokenLogprobs

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
    # With 0 the server returns no logprobs at all; the drawn token's own logprob comes only with alternatives.
    Parameter("logprobs", "n_probs", lambda width: 0 if width is None else max(1, width)),
)
"""All fields of Sampling but max_tokens, seed, grammar and stop_tokens, which are handled separately, and min_tokens,
which is unsupported."""

NEUTRAL: dict[str, Any] = {
    # The order of the llama.cpp engine. Samplers that are not listed are disabled.
    "samplers": ["penalties", "temperature", "top_k", "typ_p", "top_p", "min_p"],
    "dynatemp_range": 0.0,
    "mirostat": 0,
    "min_keep": 0,
    "stop": [],
    "post_sampling_probs": False,
    "cache_prompt": True,
    "return_tokens": True,
}
# One bit less than the server's seeds have, because the largest one selects a random seed.
_SEED_BITS = 31


class Probability(msgspec.Struct):
    """Logprob of one token, None for minus infinity, and the most likely tokens at its position."""

    id: int
    logprob: float | None = None
    top_logprobs: tuple[Probability, ...] = ()

    def logprobs(self, width: int) -> TokenLogprobs:
        """Return the token's logprobs with up to `width` alternatives."""
        tops = self.top_logprobs[:width]
        return TokenLogprobs(
            _clamp(self.logprob), tuple(top.id for top in tops), tuple(_clamp(top.logprob) for top in tops)
        )


class PromptProgress(msgspec.Struct):
    """Progress of prompt processing. `cache` is the number of prompt tokens reused from earlier requests."""

    cache: int = 0


class CompletionEvent(StreamEvent):
    """Event of a stream, or an unstreamed response. `tokens_predicted` is the number of tokens generated so far."""

    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    prompt_progress: PromptProgress | None = None
    completion_probabilities: tuple[Probability, ...] = ()


def build_request(job: Job, output: ChoiceOutput, max_tokens: int, context_length: int) -> dict[str, Any]:
    """Return the request body for up to `max_tokens` more tokens of a choice that already has those of `output`.

    `context_length` is the size of a slot, in tokens.
    """
    return {
        "prompt": [*job.prompt.tolist(), *output.tokens],
        "n_predict": max_tokens,
        "seed": draw_seed(job.sampling, output, positional=False, bits=_SEED_BITS),
        "repeat_last_n": context_length,
        **sampling_params(SAMPLING, job.sampling),
        **NEUTRAL,
    }


def build_top_tokens_request(prompt: Sequence[int], text_token: int, count: int) -> dict[str, Any]:
    """Return the request body for the `count` most likely tokens after `prompt`.

    The server returns them only with a token that is text, so the request forces `text_token`.
    """
    return {
        **NEUTRAL,
        "prompt": list(prompt),
        "n_predict": 1,
        "temperature": 0,
        "logit_bias": [[text_token, 1e6]],
        "n_probs": count,
    }


def _clamp(logprob: float | None) -> float:
    return MIN_LOGPROB if logprob is None else max(logprob, MIN_LOGPROB)
