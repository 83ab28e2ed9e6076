"""POST /tokenize and POST /detokenize: what they take and give, in vLLM's form."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from adapter.api.chat.request import Messages
from adapter.api.chat.tools import Tools
from adapter.api.chat.validation import check_messages
from adapter.api.common.contract import Contract
from adapter.api.common.readers import Reader
from adapter.api.common.sampling import ModelName, TokenId
from adapter.api.common.validation import invalid_combination
from adapter.errors import BadRequest


class TokenizeRequest(Struct, frozen=True, kw_only=True):
    """Just one of `prompt` and `messages` (`read_tokenize` sees to it). Without a `model` it is the only one served.

    An absent `add_special_tokens` is true for a prompt and false for messages, whose template writes them.
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
    """`max_model_len` is the context length of the model; `token_strs` is null where it was not asked for."""

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
    if request.prompt is None and request.messages is None:
        message = "Missing required parameter: 'prompt' or 'messages'."
        raise BadRequest(message, param="prompt", code="missing_required_parameter")
    if request.prompt is not None and request.messages is not None:
        raise invalid_combination("Setting 'prompt' and 'messages' at the same time is not supported.", "prompt")
    check_messages(request.messages or [])


read_tokenize = Reader(TokenizeRequest, Contract(TokenizeRequest.__struct_fields__), check_tokenize)
read_detokenize = Reader(DetokenizeRequest, Contract(DetokenizeRequest.__struct_fields__))
