"""Turns a request into a prompt, token ids, sampling and a grammar: all that happens before a node is asked."""

from __future__ import annotations

import msgspec

from adapter.errors import invalid
from adapter.generation.generation_request import GenerationRequest, check_media
from adapter.generation.model_registry import Model, ModelRegistry
from adapter.generation.token_lane import TokenGeneration
from adapter.grammar.json_schema_only import structured
from adapter.offload import offload_if_large
from adapter.prompt import Conversation, Prompt, own_template
from subnet.errors import ContextLengthExceeded
from subnet.generation import Grammar, Sampling
from subnet.tensors import TokenIds


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decided for all requests. `default_max_tokens` is the length of an answer whose request names
    none; None: what the context holds.
    """

    default_max_tokens: int | None = None
    allow_chat_template: bool = False


DEFAULTS = Rules()


async def prepare(
    request: GenerationRequest,
    models: ModelRegistry,
    *,
    name: str | None = None,
    size: int = 0,
    rules: Rules = DEFAULTS,
) -> TokenGeneration:
    """For a request of `size` bytes, by the model `name`, or by that of the request. Raises what `models.get` does,
    BadRequest and InvalidRequest for what the model or its template does not support, and ContextLengthExceeded.
    """
    model = await models.get(name or request.model)
    check_media(request.media, model.card.modalities)
    prompt, tokens = await write(request.conversation, model, request.chat_template, size=size, rules=rules)
    opened = model.kind.tags is not None and prompt.opened(model.kind.tags.opening, model.kind.tags.closing)
    kind, grammar = await structured(
        request.tools,
        request.output_format,
        model.kind,
        model.tokenizer.special,
        opened,
        lambda: models.grammars(model),
    )
    most = room(model, len(tokens), request.limit, rules.default_max_tokens, request.limit_param)
    output = msgspec.structs.replace(
        request.output,
        kind=kind,
        tools=request.tools.schemas,
        opened=opened,
        echo=(prompt.begun or "") if request.echo else "",
    )
    return TokenGeneration(
        model,
        prompt.text,
        tokens,
        sampling_for(request.sampling, model, most, grammar),
        output,
        choices=request.choices,
        key=request.key,
        priority=request.priority,
        names={"grammar": request.grammar_param, "prompt": "messages"},
    )


async def write(
    conversation: Conversation,
    model: Model,
    chat_template: str | None = None,
    *,
    size: int = 0,
    rules: Rules = DEFAULTS,
) -> tuple[Prompt, TokenIds]:
    """Renders the prompt by the model's template, or by `chat_template`, and tokenizes it."""
    template = None
    if chat_template is not None:
        card, permitted = model.card, rules.allow_chat_template
        template = own_template(chat_template, permitted, card.bos_token, card.eos_token)

    def written() -> tuple[Prompt, TokenIds]:
        prompt = model.write(conversation, template)
        return prompt, model.encode(prompt)

    return await offload_if_large(size, written)


def sampling_for(sampling: Sampling, model: Model, most: int, grammar: Grammar | None) -> Sampling:
    """Completes `sampling` for a model: its end tokens, `most` new tokens at the most, and a grammar. Raises BadRequest
    for a token that the model does not have."""
    size = model.tokenizer.vocab_size
    if sampling.logit_bias and max(sampling.logit_bias) >= size:
        why = f"expected token ids below {size}, but got {max(sampling.logit_bias)}"
        raise invalid("logit_bias", why)
    ends = () if sampling.ignore_eos else model.card.stop_tokens
    stop_tokens = (*ends, *sampling.stop_tokens)
    return msgspec.structs.replace(sampling, max_tokens=most, grammar=grammar, stop_tokens=stop_tokens)


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
