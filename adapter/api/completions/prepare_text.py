"""The way of a request for text: prompts -> tensors. Beside preparation.py, which has that of a conversation."""

from __future__ import annotations

from functools import partial

import msgspec

from adapter.api.common.translate_sampling import grammar_param, output_format, output_options, sampling
from adapter.api.completions.batch import CompletionBatch
from adapter.api.completions.types import CompletionRequest
from adapter.generation.model_registry import Model, ModelRegistry
from adapter.generation.plain_text import decode_tokens, tokenize_prompt
from adapter.generation.prepare import complete_sampling, max_new_tokens
from adapter.generation.token_lane import TokenGeneration
from adapter.grammar.build import plain_structure
from adapter.offload import offload_if_large
from subnet.generation import Sampling
from subnet.tensors import TokenIds


class _Written(msgspec.Struct, frozen=True):
    text: str
    tokens: TokenIds


async def prepare_text(
    request: CompletionRequest, models: ModelRegistry, *, name: str | None = None, size: int = 0
) -> CompletionBatch:
    """For a request of `size` bytes. Raises what `models.get` does, BadRequest and InvalidRequest for what the model
    does not take, and ContextLengthExceeded.
    """
    model = await models.get(name or request.model)
    grammar = await plain_structure(output_format(request))
    prompts = await offload_if_large(size, partial(_written, request, model))
    drawn = complete_sampling(sampling(request, _told(request)), model, request.limit, grammar)
    return CompletionBatch(
        [_completion(request, model, drawn, index, prompt) for index, prompt in enumerate(prompts)],
        generated=request.limit > 0,
        echo=bool(request.echo),
        num_logprobs=request.num_logprobs,
        token_ids=bool(request.return_token_ids),
    )


def _written(request: CompletionRequest, model: Model) -> list[_Written]:
    found = []
    prompts = request.prompts
    for index, prompt in enumerate(prompts):
        place = f"prompt[{index}]" if len(prompts) > 1 else "prompt"
        tokens = tokenize_prompt(model, prompt, place)
        found.append(_Written(prompt if isinstance(prompt, str) else decode_tokens(model, prompt), tokens))
    return found


def _completion(
    request: CompletionRequest, model: Model, drawn: Sampling, index: int, prompt: _Written
) -> TokenGeneration:
    _check_room(model, len(prompt.tokens), request.limit)
    choices = request.best_of or request.n or 1
    wanted = "best_of" if request.logprobs is None else "logprobs"
    return TokenGeneration(
        model,
        prompt.text,
        prompt.tokens,
        drawn,
        output_options(request, _told(request)),
        choices=choices,
        key=request.routing_key,
        priority=request.priority or 0,
        first=index * choices,
        param_names={"grammar": grammar_param(request), "logprobs": wanted, "top_logprobs": wanted},
    )


def _check_room(model: Model, prompt: int, limit: int) -> None:
    """Raises ContextLengthExceeded. Where nothing is generated a prompt may fill the context."""
    if limit or prompt > model.card.context_length:
        max_new_tokens(model, prompt, limit, None, "max_tokens", "prompt")


def _told(request: CompletionRequest) -> int | None:
    """As `likeliest`; the best choices are found by their logprobs, whether these are shown or not."""
    chosen = (request.best_of or 0) > (request.n or 1)
    return 0 if chosen and request.num_logprobs is None else request.num_logprobs
