"""The way of a request for text: prompts -> tensors. Beside preparation.py, which has that of a conversation."""

from __future__ import annotations

from functools import partial

import msgspec

from adapter.api.completions.batch import TextAnswer
from adapter.api.completions.types import CompletionRequest
from adapter.generation.models import Model, Models
from adapter.generation.output_options import View
from adapter.generation.param_names import grammar_name
from adapter.generation.prepare import room, sampling_of
from adapter.generation.token_lane import Completion
from adapter.grammar.build import completion_structure
from adapter.offload import aside
from adapter.prompt.plain_text import prompt_tokens, text_of
from subnet.generation import Sampling
from subnet.wire.tensors import TokenIds


class _Written(msgspec.Struct, frozen=True):
    text: str
    tokens: TokenIds


async def prepare_text(request: CompletionRequest, models: Models, *, size: int = 0) -> TextAnswer:
    """For a request of `size` bytes. Raises what `models.get` does, BadRequest and InvalidRequest for what the model
    does not take, and ContextLengthExceeded.
    """
    model = await models.get(request.model)
    grammar = await completion_structure(request)
    prompts = await aside(size, partial(_written, request, model))
    sampling = sampling_of(request, model, request.limit, grammar, _told(request))
    return TextAnswer(
        [_completion(request, model, sampling, index, prompt) for index, prompt in enumerate(prompts)],
        generated=request.limit > 0,
        echo=bool(request.echo),
        likeliest=request.likeliest,
        token_ids=bool(request.return_token_ids),
    )


def _written(request: CompletionRequest, model: Model) -> list[_Written]:
    found = []
    prompts = request.prompts
    for index, prompt in enumerate(prompts):
        place = f"prompt[{index}]" if len(prompts) > 1 else "prompt"
        tokens = prompt_tokens(model, prompt, place)
        found.append(_Written(prompt if isinstance(prompt, str) else text_of(model, prompt), tokens))
    return found


def _completion(
    request: CompletionRequest, model: Model, sampling: Sampling, index: int, prompt: _Written
) -> Completion:
    _check_room(model, len(prompt.tokens), request.limit)
    choices = request.best_of or request.n or 1
    wanted = "best_of" if request.logprobs is None else "logprobs"
    return Completion(
        model,
        prompt.text,
        prompt.tokens,
        sampling,
        _view(request),
        choices=choices,
        key=request.key,
        priority=request.priority or 0,
        first=index * choices,
        names={"grammar": grammar_name(request), "logprobs": wanted, "top_logprobs": wanted},
    )


def _check_room(model: Model, prompt: int, limit: int) -> None:
    """Raises ContextLengthExceeded. Where nothing is generated a prompt may fill the context."""
    if limit or prompt > model.card.context_length:
        room(model, prompt, limit, None, "max_tokens", "prompt")


def _told(request: CompletionRequest) -> int | None:
    """As `likeliest`; the best choices are found by their logprobs, whether these are shown or not."""
    chosen = (request.best_of or 0) > (request.n or 1)
    return 0 if chosen and request.likeliest is None else request.likeliest


def _view(request: CompletionRequest) -> View:
    return View(
        stops=request.stops,
        include_stop=bool(request.include_stop_str_in_output),
        logprobs=_told(request),
        token_ids=bool(request.return_token_ids),
        special=request.skip_special_tokens is False,
    )
