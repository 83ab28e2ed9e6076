"""Messages as the gateway emits them, and as clients send them back in the next request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from adapter.api.chat.collect import Collector
from adapter.api.chat.validation import read_envelope, read_request
from adapter.api.common.head import Head
from adapter.api.conversation.translate import generation_request
from adapter.decode import Detokenizer, TokenTable
from adapter.decode.choice import FullChoiceReader
from adapter.decode.events import Used
from adapter.decode.usage import NO_USAGE
from adapter.generation.chat_lane import ChatGeneration
from adapter.prompt import Conversation
from adapter.tools.parser import Parser
from subnet.chat import ChatRequest
from subnet.generation import Delta
from subnet.node_info import ModelCard
from subnet.protocols.openai.chat_body import build_body
from subnet.protocols.openai.quirks import Quirks

Json = dict[str, Any]

_BYTES = TokenTable([bytes((byte,)) for byte in range(256)], frozenset())
_CARD = ModelCard(id="m", context_length=0, tokenizer="", lane="chat")
_NULLS = ("refusal", "annotations", "audio", "function_call", "tool_calls", "name", "reasoning_content", "reasoning")
_TEXTS = st.text(max_size=6)
_ARGUMENTS = st.sampled_from(
    ["", " ", "{}", "null", "[1]", '"x"', "{broken", '{"a": "\\ud83d"}', '{"a": NaN}', '{"a": 1}{"b": 2}', "\ufeff{}"]
)
_CALLS: st.SearchStrategy[Json] = st.builds(
    lambda number, name, arguments: {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    st.integers(0, 99),
    st.sampled_from(["get_weather", "functions.get_weather:0", "", "größe", "a b"]),
    _ARGUMENTS | _TEXTS,
)
_DETAILS = st.just([{"type": "reasoning.encrypted", "data": "x", "index": 0}])

_ALWAYS: dict[str, st.SearchStrategy[Any]] = {"role": st.just("assistant"), "content": st.none() | _TEXTS}

MESSAGES: st.SearchStrategy[Json] = st.fixed_dictionaries(
    _ALWAYS,
    optional={
        "refusal": st.none() | _TEXTS,
        "reasoning_content": st.none() | _TEXTS,
        "reasoning": st.none() | _TEXTS,
        "tool_calls": st.none() | st.lists(_CALLS, max_size=3, unique_by=lambda call: str(call["id"])),
        "annotations": st.none() | st.just([]) | st.just([{"type": "url_citation", "url_citation": {"url": "x"}}]),
        "reasoning_details": st.none() | _DETAILS,
        "audio": st.none(),
        "function_call": st.none(),
        "extra_content": st.just({"google": {"thought_signature": "x"}}),
        "parsed": st.none() | st.just({"a": 1}),
    },
)
"""What a server on the chat lane may put into a message."""


def emitted(text: str, parser: Parser | None, *, cut: bool = False) -> Json:
    """Return the message that a model's answer of this text becomes, as the client gets it."""
    collector = Collector()
    reader = FullChoiceReader(0, Detokenizer(_BYTES), parser=parser)
    reader.emit = collector.receive
    reader.feed(Delta(0, list(text.encode(errors="replace")), finish_reason="length" if cut else "stop"))
    collector.receive(Used(NO_USAGE))
    answer = json.loads(msgspec.json.encode(collector.build(Head.new("m", ""))))
    message: Json = answer["choices"][0]["message"]
    return message


def _with_nulls(message: Json) -> Json:
    """OpenAI's library for Python, by `model_dump()`; LiteLLM and openai-agents send the same members."""
    return {**dict.fromkeys(_NULLS), **message}


def _accumulated(message: Json) -> Json:
    """A streamed answer, whose calls keep the index of their pieces."""
    calls = [{"index": index, **call} for index, call in enumerate(message.get("tool_calls") or ())]
    return {**message, "tool_calls": calls or None, "function_call": None}


def _in_parts(message: Json) -> Json:
    """Cline, Roo Code and LibreChat: contents are lists of parts, empty without text."""
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if content else []
    return {**message, "content": parts, "reasoning_details": []}


def _only_texts(message: Json) -> Json:
    """LangChain and n8n: no null, and an empty text beside calls."""
    return {
        **{name: value for name, value in message.items() if value is not None},
        "content": message["content"] or "",
    }


def _without_empty(message: Json) -> Json:
    """The AI SDK and qwen-code: empty members are left out, and so may be the content."""
    return {name: value for name, value in message.items() if value not in (None, "", [])}


def _encoded_again(message: Json) -> Json:
    """The AI SDK: arguments are parsed and encoded again; those that are not JSON become a JSON text."""
    calls = [
        {**call, "function": {**call["function"], "arguments": _encode_again(call["function"]["arguments"])}}
        for call in message.get("tool_calls") or ()
    ]
    return {**message, "tool_calls": calls}


def _encode_again(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments))
    except ValueError:
        return json.dumps(arguments)


CLIENTS: Sequence[Callable[[Json], Json]] = (
    dict,
    _with_nulls,
    _accumulated,
    _in_parts,
    _only_texts,
    _without_empty,
    _encoded_again,
)


def conversation(message: Json) -> list[Json]:
    """Return a history with `message`, the results of its calls with an answer to them, and the next question."""
    results = [
        {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": "21"}
        for call in message.get("tool_calls") or ()
    ]
    answer = [{"role": "assistant", "content": "It is 21."}] if results else []
    return [{"role": "user", "content": "Hi"}, message, *results, *answer, {"role": "user", "content": "And now?"}]


def read_on_token_lane(messages: list[Json], tools: Mapping[str, Any]) -> Conversation:
    """Return the conversation as it is rendered on the token lane. Raises BadRequest."""
    return generation_request(read_request(_body(messages, tools)).request).conversation


def send_on_chat_lane(messages: list[Json], tools: Mapping[str, Any]) -> bytes:
    """Return the body that a server on the chat lane gets. Raises BadRequest."""
    found = read_envelope(_body(messages, tools))
    generation = ChatGeneration(_CARD, found.body)
    request: ChatRequest = generation._request
    return msgspec.json.encode(build_body(request, Quirks(), "m"))


def _body(messages: list[Json], tools: Mapping[str, Any]) -> bytes:
    offered = [
        {"type": "function", "function": {"name": name, **({} if schema is None else {"parameters": schema})}}
        for name, schema in tools.items()
    ]
    # As JavaScript's JSON.stringify writes it, with escapes for halves of surrogate pairs.
    return json.dumps({"model": "m", "messages": messages, "tools": offered}).encode()
