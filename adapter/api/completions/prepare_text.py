"""Preparation of text completions: prompts to token ids, sampling and grammar.

adapter/generation/prepare.py does the same for conversations.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from adapter.api.common.inputs import count_inputs
from adapter.api.common.translate_sampling import grammar_param, output_format, output_options, sampling
from adapter.api.completions.token_batch import TokenBatch
from adapter.api.completions.types import CompletionRequest
from adapter.generation.model_registry import Model, ModelRegistry
from adapter.generation.plain_text import decode_tokens, tokenize_prompt
from adapter.generation.prepare import complete_sampling, lower_limit, max_new_tokens, with_maximum
from adapter.generation.token_lane import TokenGeneration
from adapter.grammar.build import build_plain_grammar
from subnet.generation import Sampling
from subnet.tensors import TokenIds

# Size in bytes of a request whose preparation takes as long as that of one choice.
_SIZE_OF_CHOICE = 512


class _TokenizedPrompt(msgspec.Struct, frozen=True):
    text: str
    tokens: TokenIds


async def prepare_text(
    request: CompletionRequest,
    models: ModelRegistry,
    *,
    name: str | None = None,
    size: int = 0,
    bound: bool = False,
    limit: int | None = None,
) -> TokenBatch:
    """Tokenize the prompts of a request whose body has `size` bytes, and return its batch.

    With `bound`, max_tokens is reduced to what the context has room for after each prompt; with `limit`, to that.
    Raises the errors of `models.get`, BadRequest and InvalidRequest for what the model does not support, and
    ContextLengthExceeded.
    """
    model = await models.get(name or request.model)
    built = await build_plain_grammar(output_format(request))
    own = sampling(request, _engine_logprobs(request))
    complete = complete_sampling(own, model, request.limit, built.grammar)

    def sampling_after(prompt: _TokenizedPrompt) -> Sampling:
        maximum = _max_tokens(model, len(prompt.tokens), lower_limit(request.limit, limit) or 0, bound)
        return complete if maximum == request.limit else with_maximum(complete, maximum)

    def generations() -> list[TokenGeneration]:
        return [
            _generation(request, model, sampling_after(prompt), index, prompt, built.relaxed)
            for index, prompt in enumerate(_tokenize_prompts(request, model))
        ]

    choices = count_inputs(request.prompt) * (request.best_of or request.n or 1)
    return TokenBatch(
        await model.offload(max(size, choices * _SIZE_OF_CHOICE), generations),
        generate=request.limit > 0,
        echo=bool(request.echo),
        num_logprobs=request.num_logprobs,
        token_ids=bool(request.return_token_ids),
    )


def _tokenize_prompts(request: CompletionRequest, model: Model) -> list[_TokenizedPrompt]:
    found = []
    prompts = request.prompts
    for index, prompt in enumerate(prompts):
        place = f"prompt[{index}]" if len(prompts) > 1 else "prompt"
        tokens = tokenize_prompt(model, prompt, place)
        found.append(_TokenizedPrompt(prompt if isinstance(prompt, str) else decode_tokens(model, prompt), tokens))
    return found


def _generation(
    request: CompletionRequest,
    model: Model,
    model_sampling: Sampling,
    index: int,
    prompt: _TokenizedPrompt,
    relaxed: Sequence[str],
) -> TokenGeneration:
    choices = request.best_of or request.n or 1
    logprobs_param = "best_of" if request.logprobs is None else "logprobs"
    return TokenGeneration(
        model,
        prompt.text,
        prompt.tokens,
        model_sampling,
        output_options(request, _engine_logprobs(request)),
        choices=choices,
        key=request.routing_key,
        priority=request.priority or 0,
        first=index * choices,
        param_names={"grammar": grammar_param(request), "logprobs": logprobs_param, "top_logprobs": logprobs_param},
        relaxed=relaxed,
        limit=request.limit,
    )


def _max_tokens(model: Model, prompt: int, limit: int, bound: bool) -> int:
    """Return the maximum number of new tokens. Raises ContextLengthExceeded for a prompt that is too long; it may fill
    the context if nothing is generated.
    """
    if not limit and prompt <= model.card.context_length:
        return 0
    return max_new_tokens(model, prompt, limit, None, "max_tokens", "prompt", bound=bound)


def _engine_logprobs(request: CompletionRequest) -> int | None:
    """Return the number of logprobs to request from the engine; None for none.

    With `best_of`, logprobs are needed to rank the choices, even if the client did not request them.
    """
    chosen = (request.best_of or 0) > (request.n or 1)
    return 0 if chosen and request.num_logprobs is None else request.num_logprobs
