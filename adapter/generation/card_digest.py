"""Digest of what a model's card does, to find out whether two nodes serve the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from adapter.prompt import ChatTemplate
from adapter.prompt.tokenizer import Tokenizer
from subnet.errors import InvalidRequest
from subnet.node_info import digest
from subnet.tensors import TokenIds

_SIZE = 16
"""Length of a digest, in hexadecimal digits: it is compared by people, and 64 bits do not collide by chance."""

# Texts that tokenizers split differently: numbers, spaces, scripts, accents in two forms, code, and rare characters.
_TEXTS = (
    "The quick brown fox didn't jump; it's 3.14159 and 1234567890, isn't it? ISN'T IT?",
    "  two  leading,   three inner and trailing spaces   \n\n\tTabs\r\n\x0b\u00a0\u2003\u3000",
    "def f(x: int) -> dict[str, int]:\n    return {'a_b': x ** 2, \"c\": [x << 1, ~x]}  # 100%",
    "https://example.org/a?b=c&d=%20#e user@example.org 2026-11-30T18:12:26Z $1,000.00 \u20ac5",
    "Stra\u00dfe na\u00efve caf\u00e9 cafe\u0301 \u0130stanbul \u01c6 \ufb01 \uff21\uff22\uff23",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5 \u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac",
    "\u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8\u05d9\u05ea",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001d4d0 \u2211\u222b\u221e \x00\x7f\ufffd",
    '{"name": "f", "arguments": {"x": [1, null, true, "\\u00e9"]}}</s><|im_end|><think>\n',
)
_QUESTION = {"role": "user", "content": "How warm is it in Z\u00fcrich?"}
_CALL = {
    "role": "assistant",
    "content": "",
    # Mistral's templates require ids of nine letters and digits.
    "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Z\u00fcrich"}}}
    ],
}
_RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": '{"celsius": 21}'}
_ANSWER = {"role": "assistant", "content": "It is 21 \u00b0C."}
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name"}},
            "required": ["city"],
        },
    },
}
_Messages = Sequence[Mapping[str, Any]]
_CONVERSATIONS: tuple[tuple[_Messages, Sequence[Mapping[str, Any]]], ...] = (
    ([_QUESTION], ()),
    ([{"role": "system", "content": "Be brief."}, _QUESTION, _ANSWER, _QUESTION], ()),
    ([_QUESTION], [_TOOL]),
    ([_QUESTION, _CALL, _RESULT, _ANSWER, _QUESTION], [_TOOL]),
)


def card_digest(tokenizer: Tokenizer, templates: tuple[ChatTemplate, ChatTemplate], stop_tokens: Sequence[int]) -> str:
    """Return the digest, which depends on what the parts do and not on how they are stored. The second of `templates`
    is that for tools.

    So a GGUF file and a folder in Hugging Face format of the same model have the same digest: the token ids of fixed
    texts, the prompts of fixed conversations with and without tools, and the tokens that end an answer.
    """
    parts = [*_token_ids(tokenizer), *_prompts(tokenizer, *templates), sorted(stop_tokens)]
    return digest(msgspec.msgpack.encode(parts))[:_SIZE]


def _token_ids(tokenizer: Tokenizer) -> Iterator[list[int]]:
    for text in _TEXTS:
        yield _encode(tokenizer.encode_with_bos, text)


def _prompts(tokenizer: Tokenizer, usual: ChatTemplate, for_tools: ChatTemplate) -> Iterator[object]:
    for messages, tools in _CONVERSATIONS:
        template = for_tools if tools else usual
        try:
            # Templates that write the date would have another digest each day.
            text = template.render(messages, tools=tools or None, variables={"strftime_now": lambda layout: layout})
        except InvalidRequest as error:
            yield error.message
        else:
            yield text
            yield _encode(tokenizer.encode_prompt, text)


def _encode(encode: Callable[[str], TokenIds], text: str) -> list[int]:
    try:
        return [*map(int, encode(text))]
    except InvalidRequest:
        return []
