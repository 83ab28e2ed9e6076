"""Inputs of fuzzing: valid examples for each target, words that occur in them, and mutations of both."""

from __future__ import annotations

import gzip
import json
import re
import struct
from functools import cache

import numpy as np
from hypothesis import strategies as st

from adapter.prompt.chat_template import DEFAULT_TEMPLATE
from adapter.tools import FORMATS, REASONING
from subnet.generation import Delta, Sampling, TokenLogprobs
from subnet.protocols.mock import BYTE_LEVEL
from subnet.tensors import pack, token_ids
from subnet.wire import columns, frames
from subnet.wire.messages import (
    Accepted,
    Cancel,
    ChoiceStart,
    EmbedReply,
    Failed,
    Generate,
    InfoRequest,
    Message,
    ScoreReply,
    TokenizeReply,
)
from tests.adapter.tools import json_examples
from tests.adapter.tools.tag_examples import TAG_EXAMPLES
from tests.provider import answer, chunk, event

_LOGPROBS = [TokenLogprobs(-1.0, (3, 4), (-1.0, -2.0))]
_MESSAGES: tuple[Message, ...] = (
    columns.pack([(1, Delta(0, [5])), (2, Delta(1, [6, 7], None, "stop", 3))]),
    columns.pack([(1, Delta(0, [5], _LOGPROBS))]),
    InfoRequest(1),
    Accepted(1),
    Cancel(1),
    Failed(1, "node_busy", "full", 0.5, "n"),
    EmbedReply(1, pack(np.eye(2, dtype=np.float32))),
    ScoreReply(1, columns.pack_logprobs(_LOGPROBS)),
    TokenizeReply(1, (pack(token_ids([1, 2])),)),
    Generate(
        model="m",
        prompt=pack(token_ids([1, 2])),
        sampling=Sampling(seed=3, logit_bias={5: -1.0}, stop_tokens=(2,), logprobs=2),
        starts=(ChoiceStart(0, pack(token_ids([7]))),),
        text="a",
    ),
)
_FUNCTION = {"name": "f", "arguments": "{}"}
_REQUEST = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "\ud83d"}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "r"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "logit_bias": {"5": -1},
    "stop": ["a"],
    "n": 2.0,
    "seed": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
}
_COMPLETION = {"model": "m", "prompt": [[1, 2], [3]], "max_tokens": 5, "logprobs": 1, "echo": True, "best_of": 2}
_CALL = {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a":'}}], "reasoning": "r"}
_STREAM = b"".join(step for step in answer("Hello there.").steps if isinstance(step, bytes))
_BODY = _STREAM + event(chunk(_CALL, logprobs={"content": [{"token": "a", "logprob": -1.0}]})) + b": ping\n\n"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_CHUNKED = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (_BODY[:20], _BODY[20:]))
_ERROR = {"error": {"message": "Please try again in 7.66s", "type": "t", "code": 429, "param": "n"}}


def _gguf() -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [
        text("general.name") + struct.pack("<I", 8) + text("m"),
        text("a.length") + struct.pack("<IQ", 10, 5),
        text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
        text("scores") + struct.pack("<IIQ", 9, 6, 2) + bytes(8),
        text("nested") + struct.pack("<IIQIQ", 9, 9, 1, 4, 1) + bytes(4),
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries)


def _with_size(*bodies: bytes) -> list[bytes]:
    """Put the size of the pieces before each body, see `pieces`."""
    return [bytes((size,)) + body for body in bodies for size in (0, 6, 255)]


_TEMPLATE = (
    b"{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}"
    b"</tool_call>{% endfor %}{% endif %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{{ tools | tojson }}"
)
_EXAMPLES: dict[str, list[bytes]] = {
    "frame": [frames.encode(message) for message in _MESSAGES],
    "artefact": [BYTE_LEVEL],
    "request": [json.dumps(body).encode() for body in (_REQUEST, _COMPLETION)],
    "events": _with_size(_BODY, _BODY.replace(b"\n", b"\r\n"), b"event: x\ndata\ndata: a\n\n", b' {"a": 1}'),
    "chunks": _with_size(_BODY, json.dumps({**chunk(finish="stop"), "usage": {"prompt_tokens": 1}}).encode()),
    "response": _with_size(
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED + b"0\r\nx: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + _HEAD + b"Content-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200\n\nhello",
    ),
    "error": [b"\xc8" + json.dumps(_ERROR).encode(), b"\x96[" + json.dumps(_ERROR).encode() + b"]"],
    "inflate": _with_size(gzip.compress(b"abc" * 50) + gzip.compress(b"d")),
    "gguf": [_gguf()],
    "template": [
        DEFAULT_TEMPLATE.encode(),
        _TEMPLATE,
    ],
}


def _text_examples(name: str) -> list[bytes]:
    kind, _, format_name = name.partition("-")
    hermes = f"<tool_call>\n{json_examples.CALL}\n</tool_call>"
    if kind == "reasoning":
        tags = REASONING[format_name]
        texts = [f"{tags.marks[0]}because{tags.marks[-1]}so{hermes}", f"because{tags.marks[-1]}"] if tags.marks else []
        return _with_size(*(text.encode() for text in (*texts, hermes)))
    marks = "".join(FORMATS[format_name].visible_marks)
    example = TAG_EXAMPLES.get(format_name)
    own = json_examples.CALLS.get(format_name) or (example.call if example is not None else hermes)
    return _with_size(*(text.encode() for text in (f"Well, {own}", own + own, marks + own)))


@cache
def examples(name: str) -> list[bytes]:
    """Return valid inputs of a target."""
    return _EXAMPLES.get(name) or _text_examples(name)


@cache
def words(name: str) -> list[bytes]:
    """Return the words and marks that occur in the examples of a target, and what all formats have in common."""
    found = {word for each in examples(name) for word in re.findall(rb"\w+|[^\w\s]+|\s+|<[^<>]*>", each)}
    common = (b"{", b"}", b"[", b"]", b'"', b"\\", b"\\ud83d", b":", b",", b"\n\n", b"\r\n", b"\xff" * 4, b"\0" * 8)
    return sorted({word for word in found if len(word) <= 64}.union(common))


@st.composite
def inputs(draw: st.DrawFn, name: str) -> bytes:
    """Inputs for a target: an example, changed in some places."""
    data = draw(st.sampled_from([*examples(name), b""]))
    # Not `|`: hypothesis would look at all words for each input.
    new = st.one_of(st.sampled_from(words(name)), st.binary(max_size=4))
    for _ in range(draw(st.integers(0, 6))):
        start, put = draw(st.integers(0, len(data))), draw(new)
        match draw(st.sampled_from(["insert", "overwrite", "repeat", "remove"])):
            case "insert":
                data = data[:start] + put + data[start:]
            case "overwrite":
                data = data[:start] + put + data[start + len(put) :]
            case "repeat":
                data = data[:start] + data[start : start + 20] + data[start:]
            case "remove":
                data = data[:start] + data[start + draw(st.integers(1, 20)) :]
    return data
