"""Tokenization of text and messages, and detokenization."""

from __future__ import annotations

from adapter.api.common.large_json import long_list, token_list
from adapter.api.common.result import Result
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.translate import generation_request
from adapter.api.tokenize.types import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from adapter.errors import BadRequest
from adapter.generation.generation_request import check_media
from adapter.generation.model_registry import Model, ModelRegistry
from adapter.generation.plain_text import (
    add_bos,
    check_token_ids,
    decode_tokens,
    list_of,
    tokenize_with_control_tokens,
)
from adapter.generation.prepare import DEFAULT_SETTINGS, GenerationSettings, render_prompt
from adapter.offload import offload_if_large
from subnet.tensors import TokenIds

# Usual size of a token's id and text in a response, in bytes.
_JSON_SIZE_OF_TOKEN = 16


async def tokenize(
    request: TokenizeRequest,
    models: ModelRegistry,
    *,
    name: str,
    size: int = 0,
    settings: GenerationSettings = DEFAULT_SETTINGS,
) -> Result[Tokenized]:
    """Tokenize the text or the messages of a request whose body has `size` bytes.

    Raises the errors of `models.get`, and BadRequest and InvalidRequest for what the model or its chat template does
    not support.
    """
    model = await models.get(name)
    if request.prompt is not None:
        tokens = await model.offload(size, tokenize_with_control_tokens, model, request.prompt, "prompt")
    else:
        tokens = await _tokenize_messages(request, model, size, settings)
    special = request.messages is None if request.add_special_tokens is None else request.add_special_tokens

    def build() -> Tokenized:
        ids = add_bos(model, tokens) if special else tokens

        def texts(start: int, stop: int) -> list[str]:
            return [decode_tokens(model, [token]) for token in ids[start:stop].tolist()]

        return Tokenized(
            model=model.card.id,
            count=len(ids),
            max_model_len=model.card.context_length,
            tokens=token_list(ids),
            token_strs=long_list(len(ids), texts) if request.return_token_strs else None,
        )

    return Result(model.card, build, _JSON_SIZE_OF_TOKEN * len(tokens))


async def detokenize(
    request: DetokenizeRequest, models: ModelRegistry, *, name: str, size: int = 0
) -> Result[Detokenized]:
    """Return the text of token ids. `size` is the size of the request body in bytes.

    Raises the errors of `models.get`, and BadRequest for a token that the model does not have.
    """
    model = await models.get(name)

    def read() -> Detokenized:
        return Detokenized(decode_tokens(model, list_of(check_token_ids(model, request.tokens, "tokens"))))

    result = await offload_if_large(size, read)
    return Result(model.card, lambda: result, len(result.prompt))


def only_model(models: ModelRegistry) -> str:
    """Return the name of the only model, for requests that name none. Raises BadRequest unless there is exactly one."""
    names = list(models.cards())
    if len(names) == 1:
        return names[0]
    message = f"Missing required parameter: 'model'. Available models: {', '.join(sorted(names)) or 'none'}."
    raise BadRequest(message, param="model", code="missing_required_parameter")


async def _tokenize_messages(
    request: TokenizeRequest, model: Model, size: int, settings: GenerationSettings
) -> TokenIds:
    assert request.messages is not None
    chat_request = ChatCompletionRequest(
        model=model.card.id,
        messages=request.messages,
        tools=request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
        chat_template=request.chat_template,
        chat_template_kwargs=request.chat_template_kwargs,
    )
    translated = generation_request(chat_request)
    check_media(translated.media, ())
    _, tokens = await render_prompt(
        translated.conversation, model, translated.chat_template, size=size, settings=settings
    )
    return tokens
