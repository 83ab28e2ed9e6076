"""Request bodies, adapted to what a server accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from subnet.chat import ChatRequest
from subnet.errors import InvalidRequest
from subnet.generation import derive_seed
from subnet.protocols.openai.ignored_parameters import names
from subnet.protocols.openai.quirks import Quirks

SEED_NAMES = ("seed", "random_seed")
"""Names of the seed: OpenAI's, and Mistral's."""

# Parameters that do not change the answer.
_NO_EFFECT = names(
    "user metadata store service_tier prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier"
    " prediction priority"
)
# Values that are the default anyway.
_DEFAULTS: Mapping[str, Sequence[Any]] = {
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "continue_final_message": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "return_token_ids": (False,),
    "skip_special_tokens": (True,),
    "stop": ([],),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "tool_choice": ("auto",),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "top_p": (1,),
    "typical_p": (1,),
    "verbosity": ("medium",),
}


def build_body(
    request: ChatRequest, quirks: Quirks, model: str, *, choices: int = 1, usage: bool = True
) -> dict[str, Any]:
    """Return the request body for this number of `choices`; `model` is the server's name of the model.

    Raises InvalidRequest, with the parameter's name, for a parameter that the server would silently ignore.
    """
    body = quirks.translate({name: value for name, value in request.body.items() if value is not None})
    for name, new in quirks.renamed.items():
        if name in body:
            body.setdefault(new, body.pop(name))
    is_chat = request.endpoint == "chat/completions"
    supported = quirks.supported if is_chat else quirks.text_supported
    unsupported = quirks.unsupported if is_chat else quirks.text_unsupported
    body = _without_tools(body, quirks)
    body = {name: value for name, value in body.items() if _is_sent(name, value, supported, unsupported)}
    if quirks.stop_list and isinstance(body.get("stop"), str):
        body["stop"] = [body["stop"]]
    body |= _messages(body["messages"], request.prefix, quirks) if is_chat else _prompt(body["prompt"], request.prefix)
    if choices > 1:
        body["n"] = choices
    if usage and not request.is_whole:
        body["stream_options"] = {"include_usage": True}
    return {**body, "model": model, "stream": not request.is_whole}


def with_own_seed(request: ChatRequest) -> ChatRequest:
    """Return `request` with the gateway's own seed, unless it has a seed or is greedy anyway."""
    body = request.body
    if body.get("seed") is not None or body.get("temperature") == 0:
        return request
    return msgspec.structs.replace(request, body={**body, "seed": request.own_seed})


def offset_seed(body: dict[str, Any], number: int, prefix: str = "") -> dict[str, Any]:
    """Return `body` with a seed for a choice, which continues `prefix`.

    With the same seed, choices that are requested separately would all be the same, and a continuation would repeat the
    draws of the answer's beginning on most servers.
    """
    name = next((name for name in SEED_NAMES if isinstance(body.get(name), int)), None)
    if name is None:
        return body
    seed = derive_seed(body[name], number, len(prefix), bits=31) if prefix else body[name] + number
    return {**body, name: seed}


def _messages(messages: list[dict[str, Any]], prefix: str, quirks: Quirks) -> dict[str, Any]:
    """Return the messages, with `prefix` as the beginning of the answer, and the parameters that this takes."""
    if not quirks.developer_role:
        messages = [_without_developer_role(message) for message in messages]
    if not prefix:
        return {"messages": messages}
    answer = {"role": "assistant", "content": prefix, **quirks.prefill_message}
    return {"messages": [*messages, answer], **quirks.prefill_body}


def _prompt(prompt: Any, prefix: str) -> dict[str, Any]:
    return {"prompt": prompt + prefix if prefix else prompt}


def _without_developer_role(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "role": "system"} if message.get("role") == "developer" else message


def _without_tools(body: dict[str, Any], quirks: Quirks) -> dict[str, Any]:
    """Omit the tools of a request with `tool_choice` "none", for a server that does not support `tool_choice`."""
    if quirks.supported is None or "tool_choice" in quirks.supported or body.get("tool_choice") != "none":
        return body
    return {name: value for name, value in body.items() if name not in ("tools", "tool_choice")}


def _is_sent(name: str, value: Any, supported: frozenset[str] | None, unsupported: frozenset[str]) -> bool:
    """Return whether to send a parameter. Raises InvalidRequest if it has an effect, and the server ignores it."""
    # A `logprobs` of 0 has an effect on text completions, and equals False.
    default = any(isinstance(value, bool) == isinstance(one, bool) and value == one for one in _DEFAULTS.get(name, ()))
    # Defaults are omitted where possible, because TGI rejects a top_p of 1.
    sent = name not in unsupported if supported is None else name in supported and not default
    if not sent and not default and name not in _NO_EFFECT:
        raise InvalidRequest(f"Unsupported parameter: '{name}' is not supported with this model.", param=name)
    return sent
