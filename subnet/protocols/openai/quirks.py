"""How OpenAI-compatible servers differ in what they take. What they send is read tolerantly, whoever sends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from subnet.http.node_spec import Kind, NodeSpec


class Quirks(msgspec.Struct, frozen=True, kw_only=True):
    """`known`: the parameters that it takes; it ignores others without a word. None: it refuses by itself, or takes
    what it can. `refused` are those that it takes for nothing, or for something else. `renamed`: its own names.
    `developer`: it knows that role; others, and OpenAI too, take "system" for the same.

    `single`: it makes one answer per request. `model`: what its only model is called there. `stop_list`: stop strings
    come in a list only. `prefill`: it goes on with a last message of the assistant, if `prefill_body` is in the request
    and `prefill_message` in the message; `repeats`: it may send that message's text again.
    """

    known: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = {}
    developer: bool = False
    single: bool = False
    model: str | None = None
    stop_list: bool = False
    prefill: bool = False
    prefill_body: Mapping[str, Any] = {}
    prefill_message: Mapping[str, Any] = {}
    repeats: bool = False


def words(text: str) -> frozenset[str]:
    """The words of `text`: names of parameters."""
    return frozenset(text.split())


_LENGTH = {"max_completion_tokens": "max_tokens"}
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}

_KINDS: Mapping[Kind, Quirks] = {
    # docs.vllm.ai, "OpenAI-Compatible Server", extra parameters of the chat API.
    "vllm": Quirks(prefill=True, prefill_body=_CONTINUE),
    # sgl-project/sglang python/sglang/srt/entrypoints/openai/protocol.py, ChatCompletionRequest.
    "sglang": Quirks(prefill=True, prefill_body=_CONTINUE),
    # ggml-org/llama.cpp tools/server/README.md: a last message of the assistant is a prefill (--no-prefill-assistant).
    # Older ones know max_tokens only and refuse n; newer ones, asked for n, send the usage of each choice on its own.
    # A form in vLLM's words is dropped without a word (seen).
    "llama-server": Quirks(
        renamed=_LENGTH,
        refused=words("structured_outputs guided_json guided_regex guided_choice guided_grammar"),
        prefill=True,
        single=True,
    ),
    # ollama/ollama openai/openai.go ChatCompletionRequest has these fields; docs/api/openai-compatibility.mdx.
    "ollama": Quirks(
        known=words(
            "messages max_tokens seed stop temperature frequency_penalty presence_penalty top_p response_format tools"
            " reasoning reasoning_effort logprobs top_logprobs"
        ),
        renamed=_LENGTH,
        single=True,
        prefill=True,
    ),
    # huggingface/text-generation-inference router/src/lib.rs ChatRequest: n and logit_bias are marked as unused, a
    # presence penalty becomes a repetition penalty, and any model but "tgi" is taken for the name of an adapter.
    "tgi": Quirks(
        known=words(
            "messages max_tokens seed stop temperature frequency_penalty top_p response_format tools tool_choice"
            " tool_prompt logprobs top_logprobs"
        ),
        renamed=_LENGTH,
        single=True,
        model="tgi",
        stop_list=True,
    ),
    # lmstudio.ai/docs/developer/openai-compat/chat-completions, supported payload parameters.
    "lmstudio": Quirks(
        refused=frozenset({"logprobs", "top_logprobs"}),
        renamed={**_LENGTH, "repetition_penalty": "repeat_penalty"},
        single=True,
    ),
}

# Also those below a name.
_HOSTS: Mapping[str, Quirks] = {
    # platform.openai.com/docs/api-reference/chat/create, messages; Azure's is the same.
    "api.openai.com": Quirks(developer=True),
    "openai.azure.com": Quirks(developer=True),
    # docs.mistral.ai, "Prefix" and the API reference; answers include the prefix.
    "api.mistral.ai": Quirks(
        renamed={**_LENGTH, "seed": "random_seed"}, prefill=True, prefill_message={"prefix": True}, repeats=True
    ),
    # console.groq.com/docs/openai (n is 1) and /docs/prefilling.
    "api.groq.com": Quirks(single=True, prefill=True),
    # platform.moonshot.ai, "Partial Mode".
    "api.moonshot.ai": Quirks(renamed=_LENGTH, prefill=True, prefill_message={"partial": True}),
    # alibabacloud.com Model Studio, "Partial mode".
    "dashscope-intl.aliyuncs.com": Quirks(renamed=_LENGTH, prefill=True, prefill_message={"partial": True}),
    "dashscope.aliyuncs.com": Quirks(renamed=_LENGTH, prefill=True, prefill_message={"partial": True}),
    # api-docs.deepseek.com, "Create Chat Completion" and "Chat Prefix Completion (Beta)", at .../beta only.
    "api.deepseek.com": Quirks(renamed=_LENGTH, prefill_message={"prefix": True}),
    # openrouter.ai/docs, "Assistant Prefill": whether it works depends on the model and on who runs it.
    "openrouter.ai": Quirks(developer=True, repeats=True),
}


def quirks_of(spec: NodeSpec) -> Quirks:
    """Those of the server that `spec` names; what it says of prefill itself is more than what is known of its kind."""
    address = urlsplit(spec.url)
    kind: Kind = spec.kind or "openai"
    found = _provider(address.hostname or "") if kind == "openai" else _KINDS.get(kind, Quirks())
    if address.hostname == "api.deepseek.com" and address.path.startswith("/beta"):
        found = msgspec.structs.replace(found, prefill=True)
    if spec.prefill is not None and spec.prefill != found.prefill:
        # Nobody documented how: it may begin anew.
        found = msgspec.structs.replace(found, prefill=spec.prefill, repeats=True)
    return found


def _provider(host: str) -> Quirks:
    return next((quirks for name, quirks in _HOSTS.items() if f".{host}".endswith(f".{name}")), Quirks())
