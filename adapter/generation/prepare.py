"""Preparation of a generation on the token lane: prompt, token ids, sampling and grammar. No node is involved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

import msgspec

from adapter.errors import CompletionTooLong, invalid
from adapter.generation.generation_request import GenerationRequest, check_media
from adapter.generation.model_registry import Model, ModelRegistry
from adapter.generation.token_lane import TokenGeneration
from adapter.grammar.json_schema_only import build_supported_grammar
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large, offload_slow
from adapter.prompt import Budget, ChatTemplate, Conversation, Prompt, TemplateTooSlow, custom_template
from subnet.errors import ContextLengthExceeded
from subnet.generation import Grammar, Sampling
from subnet.tensors import TokenIds

_UNITS_AT_ONCE = 20_000
"""Budget of a rendering that all streams wait for, up to some milliseconds. One that exceeds it starts again in a
thread, and the next one with the same template starts there. Twenty messages take about 1,500 units."""


class GenerationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the operator for all requests.

    `default_max_tokens` is the maximum number of new tokens for requests without one; None for the rest of the context.
    `allow_chat_template` permits requests to bring a chat template of their own.
    """

    default_max_tokens: int | None = None
    allow_chat_template: bool = False


DEFAULT_SETTINGS = GenerationSettings()


async def prepare(
    request: GenerationRequest,
    models: ModelRegistry,
    *,
    name: str | None = None,
    size: int = 0,
    settings: GenerationSettings = DEFAULT_SETTINGS,
    bound: bool = False,
    limit: int | None = None,
) -> TokenGeneration:
    """Prepare a request with the model `name`, by default that of the request. `size` is its size in bytes.

    With `bound`, the client's maximum of new tokens is reduced to what the context has room for; with `limit`, to that.
    Raises the errors of `models.get`, BadRequest and InvalidRequest for anything that the model or its template does
    not support, and ContextLengthExceeded.
    """
    model = await models.get(name or request.model)
    check_media(request.media, model.card.modalities)
    if request.tools.tools:
        model.check_tools()
    prompt, tokens = await render_prompt(
        request.conversation, model, request.chat_template, size=size, settings=settings
    )
    tags = model.format.tags
    starts_in_reasoning = tags is not None and prompt.starts_in_reasoning(tags.opening, tags.closing)
    answer_format, built = await build_supported_grammar(
        request.tools,
        request.output_format,
        model.format,
        model.tokenizer.special,
        starts_in_reasoning,
        lambda: models.grammars(model),
    )
    max_tokens = max_new_tokens(
        model,
        len(tokens),
        lower_limit(request.limit, limit),
        settings.default_max_tokens,
        request.limit_param,
        bound=bound,
    )
    output = msgspec.structs.replace(
        request.output,
        format=answer_format,
        tools=request.tools.schemas,
        starts_in_reasoning=starts_in_reasoning,
        echo=(prompt.answer_prefix or "") if request.echo else "",
    )
    return TokenGeneration(
        model,
        prompt.text,
        tokens,
        complete_sampling(request.sampling, model, max_tokens, built.grammar),
        output,
        choices=request.choices,
        key=request.key,
        # A limit of the gateway's own is the rest of the longest context, and would leave all other nodes idle.
        room=min(request.limit or 0, max_tokens),
        priority=request.priority,
        param_names={"grammar": request.grammar_param, "prompt": "messages"},
        relaxed=built.relaxed,
        limit=request.limit,
    )


async def render_prompt(
    conversation: Conversation,
    model: Model,
    chat_template: str | None = None,
    *,
    size: int = 0,
    settings: GenerationSettings = DEFAULT_SETTINGS,
) -> tuple[Prompt, TokenIds]:
    """Render and tokenize the prompt, with the model's template or with `chat_template`, and return both.

    Requests of a large `size` (in bytes) are processed in a thread, as are those whose rendering turns out to take
    long. Raises InvalidRequest if the template rejects the conversation, or if `chat_template` is not allowed or
    invalid, and TemplateTooSlow.
    """
    template = None
    if chat_template is not None:
        card, permitted = model.card, settings.allow_chat_template
        # Finding out what it supports takes long.
        template = await offload_if_large(
            OFFLOAD_THRESHOLD, custom_template, chat_template, permitted, card.bos_token, card.eos_token
        )

    prompt = await _render(conversation, model, template or model.template(conversation), size)
    # A template can make a long prompt of short messages.
    tokens = await model.offload(max(size, len(prompt.marked)), model.encode, prompt)
    return prompt, tokens


async def _render(conversation: Conversation, model: Model, template: ChatTemplate, size: int) -> Prompt:
    if size >= OFFLOAD_THRESHOLD:
        return await offload_if_large(size, model.render, conversation, template)
    if template.last_units <= _UNITS_AT_ONCE:
        with suppress(TemplateTooSlow):
            return model.render(conversation, template, Budget(_UNITS_AT_ONCE))
    return await offload_slow(model.render, conversation, template)


def complete_sampling(sampling: Sampling, model: Model, max_tokens: int, grammar: Grammar | None) -> Sampling:
    """Return `sampling` with the model's end tokens, the maximum number of new tokens, and the grammar.

    Raises BadRequest if `logit_bias` or `stop_token_ids` has a token that the model does not have.
    """
    _check_ids("logit_bias", sampling.logit_bias, model.tokenizer.vocab_size)
    _check_ids("stop_token_ids", sampling.stop_tokens, model.tokenizer.vocab_size)
    ends = () if sampling.ignore_eos else model.card.stop_tokens
    stop_tokens = (*ends, *sampling.stop_tokens)
    return with_maximum(msgspec.structs.replace(sampling, grammar=grammar, stop_tokens=stop_tokens), max_tokens)


def with_maximum(sampling: Sampling, max_tokens: int) -> Sampling:
    """Return `sampling` with a maximum number of new tokens, which the minimum does not exceed."""
    return msgspec.structs.replace(sampling, max_tokens=max_tokens, min_tokens=min(sampling.min_tokens, max_tokens))


def _check_ids(param: str, ids: Collection[int], size: int) -> None:
    if ids and max(ids) >= size:
        place = f"{param}.{max(ids)}" if isinstance(ids, Mapping) else param
        raise invalid(place, f"expected token ids below {size}, but got {max(ids)}")


def lower_limit(requested: int | None, found: int | None) -> int | None:
    """Return the client's maximum of new tokens, or a lower one that was `found`. Without either, there is none."""
    return requested if not requested or found is None else min(requested, found)


def max_new_tokens(
    model: Model,
    prompt: int,
    limit: int | None,
    default: int | None,
    limit_param: str,
    param: str = "messages",
    *,
    bound: bool = False,
) -> int:
    """Return the maximum number of new tokens after a prompt of `prompt` tokens.

    It is the request's `limit`, else `default`, else the rest of the context; `default`, and with `bound` also `limit`,
    is reduced to the rest of the context. `limit_param` and `param` are the parameters that `limit` and the prompt come
    from, for errors. Raises ContextLengthExceeded if the prompt and one token exceed the context length, and
    CompletionTooLong if only the prompt and `limit` do.
    """
    context = model.card.context_length
    remaining, message = context - prompt, f"This model's maximum context length is {context} tokens. However, "
    if remaining <= 0:
        message += f"your {param} resulted in {prompt} tokens. Please reduce the length of the {param}."
        raise ContextLengthExceeded(message, param=param)
    if limit and limit > remaining and not bound:
        message += (
            f"you requested {prompt + limit} tokens ({prompt} in the {param}, {limit} in the completion)."
            f" Please reduce the length of the {param} or completion."
        )
        error = CompletionTooLong(message, param=limit_param)
        error.room = remaining
        raise error
    return min(remaining, limit or default or remaining)
