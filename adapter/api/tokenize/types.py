"""Request and response types of POST /tokenize and POST /detokenize, as vLLM defines them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from adapter.api.common.contract import Contract
from adapter.api.common.readers import Reader
from adapter.api.common.sampling import ModelName, TokenId
from adapter.api.common.validation import invalid_combination
from adapter.api.conversation.request import Messages
from adapter.api.conversation.tools import Tools
from adapter.errors import BadRequest


class TokenizeRequest(Struct, frozen=True, kw_only=True):
    """A request to tokenize a prompt or messages; exactly one of them must be set.

    `model` may be absent if only one model is served. The default of `add_special_tokens` is true for a prompt, and
    false for messages, as their chat template adds special tokens.
    """

    model: ModelName | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Tools | None = None


class Tokenized(Struct, frozen=True, kw_only=True):
    """Tokens of a text. `model` is the model whose tokens they are, which may be a fallback; `max_model_len` is its
    context length; `token_strs` is null if it was not requested.
    """

    model: str
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Struct, frozen=True, kw_only=True):
    model: ModelName | None = None
    tokens: list[TokenId]


class Detokenized(Struct, frozen=True):
    prompt: str


def check_tokenize(request: TokenizeRequest) -> None:
    """Check that exactly one of `prompt` and `messages` is set. Raises BadRequest."""
    if request.prompt is None and request.messages is None:
        message = "Missing required parameter: 'prompt' or 'messages'."
        raise BadRequest(message, param="prompt", code="missing_required_parameter")
    if request.prompt is not None and request.messages is not None:
        raise invalid_combination("Setting 'prompt' and 'messages' at the same time is not supported.", "prompt")


read_tokenize = Reader(TokenizeRequest, Contract(TokenizeRequest.__struct_fields__), check_tokenize)
read_detokenize = Reader(DetokenizeRequest, Contract(DetokenizeRequest.__struct_fields__))
