"""POST /tokenize and POST /detokenize, which are vLLM's, and /v1/chat/completions/render: OpenAI has none of them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from adapter.api.chat.request import Messages
from adapter.api.chat.tools import Tools
from adapter.api.sampling import ModelName, TokenId


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


class RenderedGrammar(Struct, frozen=True):
    """See subnet/generation.py for the kinds."""

    kind: Literal["json_schema", "regex", "lark"]
    text: str


class Rendered(Struct, frozen=True, kw_only=True):
    """What POST /v1/chat/completions would ask a node for the same request.

    `tool_format` and `reasoning` say how the model writes calls and reasoning, and so how its answer is read (null: it
    does not); `grammar` is what the engine would hold the answer to (null: nothing).
    """

    model: str
    prompt: str
    prompt_token_ids: list[int]
    count: int
    max_model_len: int
    max_tokens: int
    tool_format: str | None
    reasoning: str | None
    grammar: RenderedGrammar | None


class DetokenizeRequest(Struct, frozen=True, kw_only=True):
    model: ModelName | None = None
    tokens: list[TokenId]


class Detokenized(Struct, frozen=True):
    prompt: str
