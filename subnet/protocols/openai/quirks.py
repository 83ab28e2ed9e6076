"""Differences between OpenAI-compatible servers in the requests that they accept.

Differences in their responses need no table: every known form is read from every server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from subnet.http.node_spec import Kind, NodeSpec
from subnet.protocols.openai.generation_config import to_generation_config
from subnet.protocols.openai.ignored_parameters import ignored_by, names


def _unchanged(body: dict[str, Any]) -> dict[str, Any]:
    return body


class Quirks(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of one type of server, or of one provider.

    - `supported`: the parameters it supports, if it silently ignores all others; None: it rejects them itself.
    - `text_supported`: the same for text completions.
    - `unsupported`: parameters that it silently ignores or misinterprets; for those that depend on its version, see
      ignored_parameters.
    - `text_unsupported`: the same for text completions.
    - `translate`: returns a request body with other parameters in the server's own form.
    - `renamed`: OpenAI's names of parameters, mapped to the server's own.
    - `developer_role`: it accepts the role "developer"; everyone, OpenAI included, accepts "system" instead.
    - `single_choice`: it generates one choice per request.
    - `model`: its name for the only model that it serves.
    - `stop_list`: it accepts stop strings only as a list.
    - `keeps_stop`: its answers include the stop string that ended them.
    - `prefill`: it continues a trailing assistant message, if the request contains `prefill_body` and the message
      `prefill_message`.
    - `repeats_prefix`: it may repeat the text of that message.
    - `seeds`: it gives the same answer for the same seed.
    """

    supported: frozenset[str] | None = None
    text_supported: frozenset[str] | None = None
    unsupported: frozenset[str] = frozenset()
    text_unsupported: frozenset[str] = frozenset()
    translate: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    renamed: Mapping[str, str] = {}
    developer_role: bool = False
    single_choice: bool = False
    model: str | None = None
    stop_list: bool = False
    keeps_stop: bool = False
    prefill: bool = False
    prefill_body: Mapping[str, Any] = {}
    prefill_message: Mapping[str, Any] = {}
    repeats_prefix: bool = False
    seeds: bool = False


_MAX_TOKENS = {"max_completion_tokens": "max_tokens"}
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}

_BY_KIND: Mapping[Kind, Quirks] = {
    # docs.vllm.ai, "OpenAI-Compatible Server", extra parameters of the chat API.
    "vllm": Quirks(prefill=True, prefill_body=_CONTINUE, seeds=True),
    # sgl-project/sglang python/sglang/srt/entrypoints/openai/protocol.py, ChatCompletionRequest.
    "sglang": Quirks(prefill=True, prefill_body=_CONTINUE, seeds=True),
    # ggml-org/llama.cpp tools/server/README.md: a last message of the assistant is a prefill (--no-prefill-assistant).
    # Older versions know only max_tokens and reject n; newer ones report the usage of each of n choices separately.
    "llama-server": Quirks(
        renamed=_MAX_TOKENS,
        prefill=True,
        single_choice=True,
        seeds=True,
    ),
    # ollama/ollama openai/openai.go ChatCompletionRequest has these fields; docs/api/openai-compatibility.mdx.
    "ollama": Quirks(
        supported=names(
            "messages max_tokens seed stop temperature frequency_penalty presence_penalty top_p response_format tools"
            " reasoning reasoning_effort logprobs top_logprobs"
        ),
        # CompletionRequest in the same file; its prompt is one string.
        text_supported=names(
            "prompt suffix max_tokens seed stop temperature frequency_penalty presence_penalty top_p logprobs"
        ),
        renamed=_MAX_TOKENS,
        single_choice=True,
        prefill=True,
        seeds=True,
    ),
    # huggingface/text-generation-inference router/src/lib.rs ChatRequest: n and logit_bias are marked as unused, a
    # presence penalty becomes a repetition penalty, and any model but "tgi" is treated as the name of an adapter.
    "tgi": Quirks(
        supported=names(
            "messages max_tokens seed stop temperature frequency_penalty top_p response_format tools tool_choice"
            " tool_prompt logprobs top_logprobs"
        ),
        renamed=_MAX_TOKENS,
        single_choice=True,
        model="tgi",
        stop_list=True,
    ),
    # lmstudio.ai/docs/developer/openai-compat/chat-completions, supported payload parameters.
    "lmstudio": Quirks(
        unsupported=frozenset({"logprobs", "top_logprobs"}),
        text_unsupported=frozenset({"logprobs"}),
        renamed={**_MAX_TOKENS, "repetition_penalty": "repeat_penalty"},
        single_choice=True,
    ),
    # Run, version 5.19; transformers/cli/serving/chat_completion.py and completion.py. It logs a warning for most of
    # OpenAI's parameters that it ignores; a frequency penalty becomes a repetition penalty, a suffix is appended. Seeds
    # are set for the whole process when a request arrives, so only a server with one request at a time repeats itself.
    "transformers": Quirks(
        supported=names(
            "messages max_tokens seed stop temperature top_p logit_bias tools chat_template_kwargs generation_config"
        ),
        text_supported=names("prompt max_tokens seed stop temperature top_p generation_config"),
        translate=to_generation_config,
        renamed=_MAX_TOKENS,
        single_choice=True,
        keeps_stop=True,
    ),
}

# By hostname, subdomains included.
_BY_DOMAIN: Mapping[str, Quirks] = {
    # platform.openai.com/docs/api-reference/chat/create, messages; Azure's is the same.
    "api.openai.com": Quirks(developer_role=True),
    "openai.azure.com": Quirks(developer_role=True),
    # docs.mistral.ai, "Prefix" and the API reference; answers include the prefix.
    "api.mistral.ai": Quirks(
        renamed={**_MAX_TOKENS, "seed": "random_seed"},
        prefill=True,
        prefill_message={"prefix": True},
        repeats_prefix=True,
    ),
    # console.groq.com/docs/openai (n is 1) and /docs/prefilling.
    "api.groq.com": Quirks(single_choice=True, prefill=True),
    # platform.moonshot.ai, "Partial Mode".
    "api.moonshot.ai": Quirks(renamed=_MAX_TOKENS, prefill=True, prefill_message={"partial": True}),
    # alibabacloud.com Model Studio, "Partial mode".
    "dashscope-intl.aliyuncs.com": Quirks(renamed=_MAX_TOKENS, prefill=True, prefill_message={"partial": True}),
    "dashscope.aliyuncs.com": Quirks(renamed=_MAX_TOKENS, prefill=True, prefill_message={"partial": True}),
    # api-docs.deepseek.com, "Create Chat Completion" and "Chat Prefix Completion (Beta)", at .../beta only.
    "api.deepseek.com": Quirks(renamed=_MAX_TOKENS, prefill_message={"prefix": True}),
    # openrouter.ai/docs, "Assistant Prefill": it works with some models and providers only.
    "openrouter.ai": Quirks(developer_role=True, repeats_prefix=True),
}


def quirks_for(spec: NodeSpec, version: str = "") -> Quirks:
    """Return the quirks of the server of `spec`; `spec.prefill` and `spec.seeds` override the defaults for
    its type. A `version` of "" is unknown.
    """
    address = urlsplit(spec.url)
    kind: Kind = spec.kind or "openai"
    quirks = _for_host(address.hostname or "") if kind == "openai" else _for_kind(kind, version)
    if address.hostname == "api.deepseek.com" and address.path.startswith("/beta"):
        quirks = msgspec.structs.replace(quirks, prefill=True)
    if spec.prefill is not None and spec.prefill != quirks.prefill:
        # Undocumented, so the server may repeat the prefix.
        quirks = msgspec.structs.replace(quirks, prefill=spec.prefill, repeats_prefix=True)
    return quirks if spec.seeds is None else msgspec.structs.replace(quirks, seeds=spec.seeds)


def _for_kind(kind: Kind, version: str) -> Quirks:
    quirks, ignored = _BY_KIND.get(kind, Quirks()), ignored_by(kind, version)
    if ignored is None:
        return quirks
    return msgspec.structs.replace(
        quirks,
        unsupported=quirks.unsupported | ignored.refused,
        text_unsupported=quirks.text_unsupported | ignored.text_refused,
        translate=ignored.translate,
    )


def _for_host(host: str) -> Quirks:
    return next((quirks for domain, quirks in _BY_DOMAIN.items() if f".{host}".endswith(f".{domain}")), Quirks())
