"""The contract: what becomes of every parameter of /v1/chat/completions and /v1/completions.

Nothing is dropped in silence. A parameter is honoured; or it is rejected, unless it has a value that asks for nothing;
or it is taken without effect, because it has no meaning here. One that is not in the table is taken and named in the
`x-ignored-params` header, or rejected where the operator is strict. The README's table is made from this one.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Endpoint = Literal["chat", "completions"]
Fate = Literal["honoured", "rejected", "no effect"]

CHAT: tuple[Endpoint, ...] = ("chat",)
COMPLETIONS: tuple[Endpoint, ...] = ("completions",)
BOTH = CHAT + COMPLETIONS


class Parameter(Struct, frozen=True):
    """`note` is what it takes, or why it is not honoured. `neutral` are the values of a rejected one, beside null,
    that ask for nothing.
    """

    name: str
    fate: Fate
    note: str
    on: tuple[Endpoint, ...] = BOTH
    neutral: tuple[object, ...] = ()


def _honoured(name: str, note: str, on: tuple[Endpoint, ...] = BOTH) -> Parameter:
    return Parameter(name, "honoured", note, on)


def _rejected(name: str, note: str, *neutral: object, on: tuple[Endpoint, ...] = CHAT) -> Parameter:
    return Parameter(name, "rejected", note, on, neutral)


def _idle(name: str, note: str) -> Parameter:
    return Parameter(name, "no effect", note, CHAT)


TABLE = (
    _honoured("model", "one of `GET /v1/models`"),
    _honoured("messages", "1 to 4,096; roles system, developer, user, assistant, tool", CHAT),
    _honoured(
        "prompt", "a text, texts, token ids, or lists of token ids; with `n`, up to 2,048 completions", COMPLETIONS
    ),
    _honoured("max_completion_tokens", "at least 1; without it what the context holds", CHAT),
    _honoured("max_tokens", "the older name of `max_completion_tokens`", CHAT),
    _honoured("max_tokens", "at least 0; 16 without it", COMPLETIONS),
    _honoured("min_tokens", "no end before so many tokens"),
    _honoured("temperature", "0 to 2"),
    _honoured("top_p", "0 to 1"),
    _honoured("top_k", "-1 and 0: all tokens"),
    _honoured("min_p", "0 to 1"),
    _honoured("typical_p", "above 0, up to 1"),
    _honoured("frequency_penalty", "-2 to 2"),
    _honoured("presence_penalty", "-2 to 2"),
    _honoured("repetition_penalty", "above 0"),
    _honoured("logit_bias", "token ids, as strings, to -100 to 100; up to 1,024"),
    _honoured("seed", "an integer of 64 bits"),
    _honoured("n", "1 to 128"),
    _honoured("best_of", "`n` to 20; not streamed", COMPLETIONS),
    _honoured("stop", "a string, or up to 4"),
    _honoured("stop_token_ids", "up to 128"),
    _honoured("include_stop_str_in_output", "true or false"),
    _honoured("ignore_eos", "true or false"),
    _honoured("stream", "true or false"),
    _honoured("stream_options", "`include_usage`, `continuous_usage_stats`; `include_obfuscation` has no effect"),
    _honoured("logprobs", "true or false", CHAT),
    _honoured("top_logprobs", "0 to 20, with `logprobs`", CHAT),
    _honoured("logprobs", "0 to 5", COMPLETIONS),
    _honoured("echo", "the answer begins with the last message, if that is the assistant's", CHAT),
    _honoured("echo", "the text begins with the prompt", COMPLETIONS),
    _honoured("return_token_ids", "true or false"),
    _honoured("skip_special_tokens", "true unless it is given"),
    _honoured("tools", "up to 128 functions", CHAT),
    _honoured("tool_choice", "none, auto, required, a named function, or allowed tools", CHAT),
    _honoured("parallel_tool_calls", "true or false", CHAT),
    _honoured("response_format", "text, json_object or json_schema"),
    _honoured("structured_outputs", "one of `json`, `regex`, `choice`, `grammar`, `json_object`"),
    _honoured("guided_json", "the older form of `structured_outputs.json`"),
    _honoured("guided_regex", "the older form of `structured_outputs.regex`"),
    _honoured("guided_choice", "the older form of `structured_outputs.choice`"),
    _honoured("guided_grammar", "the older form of `structured_outputs.grammar`"),
    _honoured("reasoning_effort", "none, minimal, low, medium, high, xhigh, max; where the template knows it", CHAT),
    _honoured("verbosity", "low, medium, high; where the template knows it", CHAT),
    _honoured("add_generation_prompt", "true unless it is given", CHAT),
    _honoured("continue_final_message", "the answer goes on with the last message", CHAT),
    _honoured("chat_template", "a template for this request, if the operator lets clients have their own", CHAT),
    _honoured("chat_template_kwargs", "variables of the template", CHAT),
    _honoured("documents", "up to 1,024, for templates that know them", CHAT),
    _honoured("priority", "an integer: where requests wait, the smaller goes first"),
    _honoured("prompt_cache_key", "requests of one key are kept on one node, with the policy `sticky`"),
    _honoured("user", "stands in for `prompt_cache_key`"),
    _rejected("audio", "no model here speaks"),
    _rejected("modalities", "the models here write text only", ["text"]),
    _rejected("moderation", "nothing here moderates"),
    _rejected("store", "nothing is stored here", False),
    _rejected("web_search_options", "nothing here searches the web"),
    _rejected("functions", "it was replaced by `tools`", []),
    _rejected("function_call", "it was replaced by `tool_choice`", "none", "auto"),
    _rejected("suffix", "no model here fills a gap", "", on=COMPLETIONS),
    _idle("metadata", "nothing is stored that it could be found by"),
    _idle("prediction", "it changes the speed of an answer only"),
    _idle("prompt_cache_options", "the nodes' caches look after themselves"),
    _idle("prompt_cache_retention", "the nodes' caches look after themselves"),
    _idle("safety_identifier", "nobody here is reported"),
    _idle("service_tier", "there is one tier"),
)
