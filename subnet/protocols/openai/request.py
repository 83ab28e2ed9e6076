"""The body of a request, as a server takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subnet.chat import ChatRequest
from subnet.errors import InvalidRequest
from subnet.protocols.openai.quirks import Quirks, words

# They change nothing of an answer.
_HARMLESS = words(
    "user metadata store service_tier prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier"
    " prediction priority"
)
# Values that say what holds anyway.
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
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
    "tool_choice": ("auto",),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "top_p": (1,),
    "typical_p": (1,),
}


def body_of(
    request: ChatRequest, quirks: Quirks, model: str, *, choices: int = 1, usage: bool = True
) -> dict[str, Any]:
    """What is posted for so many `choices` of `request` to `model`, by its name there. Raises InvalidRequest, which
    names it, for a parameter that the server would drop without a word.
    """
    body = {name: value for name, value in request.body.items() if value is not None}
    for name, new in quirks.renamed.items():
        if name in body:
            body.setdefault(new, body.pop(name))
    body = _without_tools(body, quirks)
    body = {name: value for name, value in body.items() if _sent(name, value, quirks)}
    if quirks.stop_list and isinstance(body.get("stop"), str):
        body["stop"] = [body["stop"]]
    if not quirks.developer:
        body["messages"] = [_for_all(message) for message in body["messages"]]
    if request.begun:
        begun = {"role": "assistant", "content": request.begun, **quirks.prefill_message}
        body |= {"messages": [*body["messages"], begun], **quirks.prefill_body}
    if choices > 1:
        body["n"] = choices
    if usage:
        body["stream_options"] = {"include_usage": True}
    return {**body, "model": model, "stream": True}


def reseeded(body: dict[str, Any], number: int) -> dict[str, Any]:
    """The request of a choice that is asked for on its own: with the same seed all would say the same."""
    name = next((name for name in ("seed", "random_seed") if isinstance(body.get(name), int)), None)
    return body if name is None else {**body, name: body[name] + number}


def _for_all(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "role": "system"} if message.get("role") == "developer" else message


def _without_tools(body: dict[str, Any], quirks: Quirks) -> dict[str, Any]:
    """A server that does not know `tool_choice` calls nothing where it has nothing to call."""
    if quirks.known is None or "tool_choice" in quirks.known or body.get("tool_choice") != "none":
        return body
    return {name: value for name, value in body.items() if name not in ("tools", "tool_choice")}


def _sent(name: str, value: Any, quirks: Quirks) -> bool:
    """Whether a parameter is for this server. Raises InvalidRequest where it should be, and cannot."""
    neutral = value in _NEUTRAL.get(name, ())
    # Neutral ones are not needed, and TGI refuses a top_p of 1.
    taken = name not in quirks.refused if quirks.known is None else name in quirks.known and not neutral
    if not taken and not neutral and name not in _HARMLESS:
        raise InvalidRequest(f"Unsupported parameter: '{name}' is not supported with this model.", param=name)
    return taken
