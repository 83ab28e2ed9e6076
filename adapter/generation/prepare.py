"""The way of a request: messages -> prompt -> tensor. Everything before a node is bothered."""

from __future__ import annotations

import msgspec

from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.sampling import SamplingRequest
from adapter.api.validation import check_modalities
from adapter.errors import BadRequest
from adapter.generation.models import Model, Models
from adapter.generation.output_options import View
from adapter.generation.param_names import grammar_name
from adapter.generation.token_lane import Completion
from adapter.grammar.json_schema_only import structured
from adapter.offload import aside
from adapter.prompt import Conversation, Prompt, own_template
from adapter.prompt.from_openai import conversation, offered
from adapter.tools import Kind
from subnet.errors import ContextLengthExceeded
from subnet.generation import Grammar, Sampling
from subnet.wire.tensors import TokenIds


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decided for all requests. `default_max_tokens` is the length of an answer whose request names
    none; None: what the context holds.
    """

    default_max_tokens: int | None = None
    allow_chat_template: bool = False


DEFAULTS = Rules()


async def prepare(
    request: ChatCompletionRequest,
    models: Models,
    *,
    name: str | None = None,
    size: int = 0,
    rules: Rules = DEFAULTS,
) -> Completion:
    """For a request of `size` bytes, by the model `name`, or by that of the request. Raises what `models.get` does,
    BadRequest and InvalidRequest for what the model or its template does not take, and ContextLengthExceeded.
    """
    model = await models.get(name or request.model)
    check_modalities(request.messages, model.card.modalities)
    prompt, tokens = await write(request, model, size=size, rules=rules)
    opened = model.kind.tags is not None and prompt.opened(model.kind.tags.opening, model.kind.tags.closing)
    special = model.tokenizer.special
    kind, grammar = await structured(request, model.kind, special, opened, lambda: models.grammars(model))
    most = room(model, len(tokens), request.limit, rules.default_max_tokens, _LIMITS[bool(request.max_tokens)])
    sampling = sampling_of(request, model, most, grammar, request.likeliest)
    view = _view(request, kind, prompt, opened)
    names = {"grammar": grammar_name(request), "prompt": "messages"}
    return Completion(
        model,
        prompt.text,
        tokens,
        sampling,
        view,
        choices=request.n or 1,
        key=request.key,
        priority=request.priority or 0,
        names=names,
    )


_LIMITS = ("max_completion_tokens", "max_tokens")


async def write(
    request: ChatCompletionRequest, model: Model, *, size: int = 0, rules: Rules = DEFAULTS
) -> tuple[Prompt, TokenIds]:
    """The prompt, as text and as token ids."""
    template = None
    if request.chat_template is not None:
        card, permitted = model.card, rules.allow_chat_template
        template = own_template(request.chat_template, permitted, card.bos_token, card.eos_token)

    def written() -> tuple[Prompt, TokenIds]:
        prompt = model.write(plain, template)
        return prompt, model.encode(prompt)

    plain: Conversation = conversation(request)
    return await aside(size, written)


def sampling_of(
    request: SamplingRequest, model: Model, most: int, grammar: Grammar | None, likeliest: int | None
) -> Sampling:
    """`most` new tokens at most. Raises BadRequest for a token that the model does not have."""
    bias = request.logit_bias or {}
    size = model.tokenizer.vocab_size
    if bias and max(bias) >= size:
        raise BadRequest(
            f"Invalid value for 'logit_bias': expected token ids below {size}, but got {max(bias)}.",
            param="logit_bias",
            code="invalid_value",
        )
    ends = () if request.ignore_eos else model.card.stop_tokens
    return Sampling(
        temperature=_or(request.temperature, 1.0),
        top_p=_or(request.top_p, 1.0),
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        typical_p=_or(request.typical_p, 1.0),
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        logit_bias=bias,
        max_tokens=most,
        min_tokens=request.min_tokens or 0,
        seed=request.seed,
        stop_tokens=(*ends, *(request.stop_token_ids or ())),
        ignore_eos=bool(request.ignore_eos),
        logprobs=likeliest,
        grammar=grammar,
    )


def room(model: Model, prompt: int, limit: int | None, default: int | None, name: str, param: str = "messages") -> int:
    """How many new tokens a prompt of `prompt` tokens leaves room for, at most `limit`, the parameter `name`; `param`
    is where the prompt comes from. Raises ContextLengthExceeded.
    """
    context, wanted = model.card.context_length, limit or 1
    if prompt + wanted <= context:
        most = context - prompt
        return min(most, limit or default or most)
    if prompt >= context:
        however = f"your {param} resulted in {prompt} tokens. Please reduce the length of the {param}."
    else:
        however = (
            f"you requested {prompt + wanted} tokens ({prompt} in the {param}, {wanted} in the completion)."
            f" Please reduce the length of the {param} or completion."
        )
    message = f"This model's maximum context length is {context} tokens. However, {however}"
    raise ContextLengthExceeded(message, param=param if prompt >= context else name)


def _view(request: ChatCompletionRequest, kind: Kind, prompt: Prompt, opened: bool) -> View:
    return View(
        stops=request.stops,
        include_stop=bool(request.include_stop_str_in_output),
        logprobs=request.likeliest,
        token_ids=bool(request.return_token_ids),
        special=request.skip_special_tokens is False,
        kind=kind,
        tools={tool.function.name: tool.function.parameters for tool in offered(request)},
        opened=opened,
        echo=(prompt.begun or "") if request.echo else "",
    )


def _or(value: float | None, neutral: float) -> float:
    return neutral if value is None else value
