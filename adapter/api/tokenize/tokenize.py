"""Tokenization of text and messages, and detokenization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.chat.translate import generation_request
from adapter.api.common.large_json import long_list, token_list
from adapter.api.tokenize.types import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from adapter.decode.usage import NO_USAGE, Usage
from adapter.errors import BadRequest
from adapter.generation.base import Work
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
from subnet.node_info import ModelCard
from subnet.tensors import TokenIds

T = TypeVar("T")

# Usual size of a token's id and text in a response, in bytes.
_JSON_SIZE_OF_TOKEN = 16


class Tokenization(Work, Generic[T]):
    """Work that needs no node: tokens of a text, or text of tokens. `build` returns the result, of about `size` bytes
    of JSON.
    """

    def __init__(self, card: ModelCard, build: Callable[[], T], size: int) -> None:
        self._card = card
        self.build = build
        self.size = size

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def usage(self) -> Usage:
        return NO_USAGE


async def tokenize(
    request: TokenizeRequest,
    models: ModelRegistry,
    *,
    name: str,
    size: int = 0,
    settings: GenerationSettings = DEFAULT_SETTINGS,
) -> Tokenization[Tokenized]:
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

    return Tokenization(model.card, build, _JSON_SIZE_OF_TOKEN * len(tokens))


async def detokenize(
    request: DetokenizeRequest, models: ModelRegistry, *, name: str, size: int = 0
) -> Tokenization[Detokenized]:
    """Return the text of token ids. `size` is the size of the request body in bytes.

    Raises the errors of `models.get`, and BadRequest for a token that the model does not have.
    """
    model = await models.get(name)

    def read() -> Detokenized:
        return Detokenized(decode_tokens(model, list_of(check_token_ids(model, request.tokens, "tokens"))))

    result = await offload_if_large(size, read)
    return Tokenization(model.card, lambda: result, len(result.prompt))


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
