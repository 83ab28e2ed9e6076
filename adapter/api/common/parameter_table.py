"""Parameter table: how every parameter of /v1/chat/completions, /v1/completions and /v1/messages is handled.

No parameter is dropped silently. Each one is honoured; or rejected, unless its value is neutral, that is, requests
nothing; or accepted without effect, because it has no meaning here. Parameters that are not in the table are ignored
and named in the `x-ignored-params` header, or rejected with the setting `strict`. The table in the README is generated
from this one.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Endpoint = Literal["chat", "completions", "messages"]
Handling = Literal["honoured", "rejected", "no effect"]

CHAT: tuple[Endpoint, ...] = ("chat",)
COMPLETIONS: tuple[Endpoint, ...] = ("completions",)
MESSAGES: tuple[Endpoint, ...] = ("messages",)
BOTH = CHAT + COMPLETIONS
ALL = BOTH + MESSAGES


class Parameter(Struct, frozen=True):
    """A parameter and how it is handled.

    `note` describes the accepted values, or why it is not honoured. `neutral` are the values besides null that are
    accepted for a rejected parameter, because they request nothing, or left of one whose older form was converted.
    `type` is checked where there is no effect.
    """

    name: str
    handling: Handling
    note: str
    endpoints: tuple[Endpoint, ...] = BOTH
    neutral: tuple[object, ...] = ()
    type: type | None = None


def _honoured(name: str, note: str, endpoints: tuple[Endpoint, ...] = BOTH) -> Parameter:
    return Parameter(name, "honoured", note, endpoints)


def _rejected(name: str, note: str, *neutral: object, endpoints: tuple[Endpoint, ...] = CHAT) -> Parameter:
    return Parameter(name, "rejected", note, endpoints, neutral)


def _converted(name: str, note: str, *neutral: object) -> Parameter:
    return Parameter(name, "honoured", note, CHAT, neutral)


def _no_effect(name: str, note: str, kind: type, endpoints: tuple[Endpoint, ...] = CHAT) -> Parameter:
    return Parameter(name, "no effect", note, endpoints, type=kind)


TABLE = (
    _honoured("model", "a model id from `GET /v1/models`", ALL),
    _honoured("messages", "1 to 4,096 messages; roles: system, developer, user, assistant, tool", CHAT),
    _honoured("messages", "1 to 4,096 messages; roles: user, assistant, system", MESSAGES),
    _honoured("system", "a string, or an array of text blocks", MESSAGES),
    _honoured(
        "prompt",
        "a string, an array of strings, token ids, or an array of token id arrays; up to 2,048 prompts times `n`",
        COMPLETIONS,
    ),
    _honoured(
        "max_completion_tokens", "at least 1; default: `default_max_tokens` if set, else the rest of the context", CHAT
    ),
    _honoured("max_tokens", "older name of `max_completion_tokens`", CHAT),
    _honoured("max_tokens", "at least 0; default 16", COMPLETIONS),
    _honoured("max_tokens", "at least 1; without it, as `max_completion_tokens`", MESSAGES),
    _honoured("min_tokens", "minimum number of tokens before the answer may end"),
    _honoured("temperature", "0 to 2", ALL),
    _honoured("top_p", "0 to 1", ALL),
    _honoured("top_k", "-1 or 0: no limit", ALL),
    _honoured("min_p", "0 to 1"),
    _honoured("typical_p", "greater than 0, at most 1"),
    _honoured("frequency_penalty", "-2 to 2"),
    _honoured("presence_penalty", "-2 to 2"),
    _honoured("repetition_penalty", "greater than 0"),
    _honoured("logit_bias", "an object from token ids (as strings) to values from -100 to 100; up to 1,024 entries"),
    _honoured("seed", "a 64-bit integer"),
    _honoured("n", "1 to 128"),
    _honoured("best_of", "`n` to 20; not with `stream`", COMPLETIONS),
    _honoured("stop", "a string, or an array of up to 64 strings; 4 with `strict`"),
    _honoured("stop_sequences", "an array of up to 64 strings", MESSAGES),
    _honoured("stop_token_ids", "up to 128 token ids"),
    _honoured("include_stop_str_in_output", "true or false"),
    _honoured("ignore_eos", "true or false"),
    _honoured("stream", "true or false", ALL),
    _honoured("stream_options", "`include_usage`, `continuous_usage_stats`; `include_obfuscation` has no effect"),
    _honoured("logprobs", "true or false", CHAT),
    _honoured("top_logprobs", "0 to 20; requires `logprobs`", CHAT),
    _honoured("logprobs", "0 to 5", COMPLETIONS),
    _honoured("echo", "with `continue_final_message`, the answer includes the message it continues", CHAT),
    _honoured("echo", "the text starts with the prompt", COMPLETIONS),
    _honoured("return_token_ids", "true or false"),
    _honoured("skip_special_tokens", "true or false; default true"),
    _honoured("tools", "up to 128 functions", CHAT),
    _honoured("tools", "up to 512; those of Anthropic are left out, and named in `x-ignored-params`", MESSAGES),
    _honoured("tool_choice", "none, auto, required, a named function, or allowed tools", CHAT),
    _honoured("tool_choice", "auto, any, tool or none; `disable_parallel_tool_use`", MESSAGES),
    _honoured("parallel_tool_calls", "true or false", CHAT),
    _honoured("response_format", "text, json_object or json_schema"),
    _honoured("structured_outputs", "exactly one of `json`, `regex`, `choice`, `grammar`, `json_object`"),
    _honoured("guided_json", "older form of `structured_outputs.json`"),
    _honoured("guided_regex", "older form of `structured_outputs.regex`"),
    _honoured("guided_choice", "older form of `structured_outputs.choice`"),
    _honoured("guided_grammar", "older form of `structured_outputs.grammar`"),
    _honoured(
        "reasoning_effort",
        "none, minimal, low, medium, high, xhigh or max, if the model's chat template supports it",
        CHAT,
    ),
    _honoured(
        "thinking",
        "enabled, disabled or adaptive, as far as the model's chat template can; a budget of up to 4,096 is a low"
        " effort, of up to 16,384 a medium one",
        MESSAGES,
    ),
    _honoured("output_config", "`format`; `effort` as far as the model's chat template can", MESSAGES),
    _honoured("verbosity", "low, medium or high, if the model's chat template supports it", CHAT),
    _honoured("add_generation_prompt", "true or false; default true, unless a message is continued", CHAT),
    _honoured("continue_final_message", "true or false; the answer continues the last message", CHAT),
    _honoured("chat_template", "a template for this request, if the operator has set `allow_chat_template`", CHAT),
    _honoured("chat_template_kwargs", "variables for the chat template", CHAT),
    _honoured("documents", "up to 1,024, if the model's chat template supports them", CHAT),
    _honoured("priority", "an integer; lower values leave the queue first"),
    _honoured("prompt_cache_key", "requests with the same key go to the same node, with the policy `sticky`"),
    _honoured("user", "used if there is no `prompt_cache_key`"),
    _honoured("metadata", "`user_id`, as `user`", MESSAGES),
    _rejected("audio", "audio output is not supported"),
    _rejected("modalities", "only text output is supported", ["text"]),
    _rejected("moderation", "moderation is not supported"),
    _rejected("store", "responses are not stored", False),
    _rejected("web_search_options", "web search is not supported"),
    _converted("functions", "older form of `tools`", []),
    _converted("function_call", "older form of `tool_choice`", "none", "auto"),
    _rejected("suffix", "inserting text before a suffix is not supported", "", endpoints=COMPLETIONS),
    _no_effect("cache_control", "accepted and ignored: the nodes manage their own caches", dict, MESSAGES),
    _no_effect(
        "context_management", "accepted and ignored: the client's messages are used as they are", dict, MESSAGES
    ),
    _no_effect("inference_geo", "accepted and ignored: the operator chooses the nodes", str, MESSAGES),
    _no_effect("speed", "accepted and ignored: there is only one speed", str, MESSAGES),
    _no_effect("metadata", "accepted and ignored: responses are not stored", dict),
    _no_effect("prediction", "accepted and ignored: it only affects speed", dict),
    _no_effect("prompt_cache_options", "accepted and ignored: the nodes manage their own caches", dict),
    _no_effect("prompt_cache_retention", "accepted and ignored: the nodes manage their own caches", str),
    _no_effect("safety_identifier", "accepted and ignored: users are not reported to anyone", str),
    _no_effect("service_tier", "accepted and ignored: there is only one service tier", str, CHAT + MESSAGES),
)
