"""An answer is the same however its tokens are split into deltas, and streamed or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise, zip_longest
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.api.chat.collect import Collector
from adapter.api.chat.stream import ChunkWriter
from adapter.api.common.access_log import Record
from adapter.api.common.event_stream import event_stream
from adapter.api.common.head import Head
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.translate import generation_request
from adapter.generation.model_registry import ModelRegistry
from adapter.generation.prepare import prepare
from subnet import RemoteManager, SessionManager
from subnet.generation import Delta, FinishReason, TokenLogprobs
from subnet.node_info import Capabilities, TokenizerArtefact
from subnet.protocols.mock import MockProtocol
from tests.checked import check, check_events
from tests.fakes import ASK, QUICK, events_of

WORDS = [b"<think>", b"</think>", b"<tool_call>", b"</tool_call>", b'{"name": "add", ', b'"arguments": {', b"}}"]
WORDS += [
    b'"a": 1',
    b'"\xc3\xa4": "',
    b'"',
    b" ST",
    b"OP",
    b" \xc3\xa9\xf0\x9f",
    b"\x98\x80",
    b"Hello",
    b",",
    b"<tool",
    b">H",
]
ARTEFACT = TokenizerArtefact(
    pieces=[bytes((byte,)) for byte in range(256)] + [b"<|end|>", *WORDS],
    control=[256],
    pattern=r"[\s\S]",
    merges=list(range(256)),
)
# The formats of reasoning and calls are detected from this template's marks.
THINKING = "{% for m in messages %}{{ m.content }}{% endfor %}<think></think><tool_call>{{ tools or '' }}"
PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
ABLE = Capabilities(resume="exact", top_logprobs=2)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
HEAD = Head(id="chatcmpl-1", created=7, model="mock", system_fingerprint="fp_1")

Tokens = tuple[int, ...]


def tokens(text: str) -> Tokens:
    """Return the token ids of `text`, with the longest possible tokens."""
    data, found = text.encode(), []
    while data:
        word = max((word for word in WORDS if data.startswith(word)), key=len, default=data[:1])
        found.append(257 + WORDS.index(word) if word in WORDS else word[0])
        data = data[len(word) :]
    return tuple(found)


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "ä": "é😀"}}\n</tool_call>'
SENTENCES = [CALL, "<think>Hm, é.</think>", "Hello é😀 there", " STOP it", '{"a": [1]}', "\n\n", "<tool", "\ufffd"]
pieces = st.sampled_from([tokens(text) for text in SENTENCES]) | st.integers(0, 256 + len(WORDS)).map(
    lambda one: (one,)
)
answers = st.lists(pieces, max_size=6).map(lambda found: tuple(token for piece in found for token in piece))
proper = st.lists(st.sampled_from([tokens(text) for text in ("Hello é😀 there", " STOP", "ä", "<tool", "a\n")]))


class Said(msgspec.Struct, frozen=True):
    """Tokens that a node sends for one choice, each with its own logprob, split into deltas at `cuts`."""

    tokens: Tokens
    reason: FinishReason
    cuts: tuple[int, ...] = ()

    def deltas(self, index: int) -> list[Delta]:
        places = [0, *sorted(cut % (len(self.tokens) + 1) for cut in self.cuts), len(self.tokens)]
        parts = [self.tokens[start:end] for start, end in pairwise(places)]
        found = [Delta(index, list(part), [_logprobs(token) for token in part]) for part in parts if part]
        return [*found, Delta(index, [], finish_reason=self.reason)]


def _logprobs(token: int) -> TokenLogprobs:
    return TokenLogprobs(-0.5 - token, (token, 65), (-0.5 - token, -900.0))


def each(said: Said) -> Said:
    """Return the same tokens with one token per delta."""
    return msgspec.structs.replace(said, cuts=tuple(range(len(said.tokens))))


cuts = st.lists(st.integers(0, 60), max_size=12).map(tuple)
saids = st.builds(Said, answers, st.sampled_from(["stop", "length"]), cuts)
wanted = st.fixed_dictionaries(
    {},
    optional={
        "logprobs": st.just(True),
        "stop": st.sampled_from(["STOP", "é", "}", ["\n", "Hello é"]]),
        "tools": st.just([TOOL]),
        "return_token_ids": st.just(True),
        "include_stop_str_in_output": st.booleans(),
        "skip_special_tokens": st.booleans(),
    },
)


async def answered(said: Sequence[Said], fields: dict[str, Any], template: str, stream: bool) -> bytes:
    """Return the body that the client receives."""
    rounds = zip_longest(*(one.deltas(index) for index, one in enumerate(said)))
    script = [delta for deltas in rounds for delta in deltas if delta is not None]
    node = MockProtocol(script, artefact=ARTEFACT.to_bytes(), chat_template=template, capabilities=ABLE)
    request = msgspec.convert({**ASK, "n": len(said), **fields}, ChatCompletionRequest)
    async with RemoteManager([node]) as remotes:
        await remotes.ready()
        completion = await prepare(generation_request(request), ModelRegistry(remotes))
        sessions = SessionManager(remotes, limits=QUICK)
        ids = completion.prompt.tolist() if request.return_token_ids else None
        if not stream:
            collector = Collector(choices=len(said))
            await completion.run(sessions, collector.receive)
            return msgspec.json.encode(collector.build(HEAD, prompt_token_ids=ids))
        parts: list[bytes] = []
        encoder = ChunkWriter(HEAD, parts.append, choices=len(said), include_usage=True, prompt_token_ids=ids)
        run = partial(completion.run, sessions, encoder.emit)
        await event_stream(run, parts.append, lambda: bool(parts), lambda: b"", Record("", 0.0))
        return b"".join(parts)


def whole(said: Sequence[Said], fields: dict[str, Any], template: str = THINKING) -> Any:
    answer = json.loads(asyncio.run(answered(said, fields, template, False)))
    check(answer)
    return {"choices": [_choice(choice) for choice in answer["choices"]], "usage": answer["usage"]}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    """Return everything but the random ids of tool calls."""
    message = choice["message"]
    return {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning_content", ""),
        "calls": [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())],
        "logprobs": (choice["logprobs"] or {}).get("content") or [],
        "ids": choice.get("token_ids", []),
        "reason": choice["finish_reason"],
    }


def streamed(said: Sequence[Said], fields: dict[str, Any], template: str = THINKING) -> Any:
    """Return the answer assembled from the events of its stream."""
    body = asyncio.run(answered(said, fields, template, True))
    check_events(body.decode())
    *chunks, done = events_of(body)
    assert done == "[DONE]"
    found = [_nothing() for _ in said]
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        _add(found[choice["index"]], choice)
    for one in found:
        one["calls"] = [tuple(call) for call in one["calls"]]
    return {"choices": found, "usage": chunks[-1]["usage"]}


def _nothing() -> dict[str, Any]:
    return {"content": "", "reasoning": "", "calls": [], "logprobs": [], "ids": [], "reason": None}


def _add(found: dict[str, Any], choice: dict[str, Any]) -> None:
    delta = choice["delta"]
    found["content"] += delta.get("content") or ""
    found["reasoning"] += delta.get("reasoning_content") or ""
    for call in delta.get("tool_calls") or ():
        if "id" in call:
            assert call["index"] == len(found["calls"])
            found["calls"].append([call["function"]["name"], ""])
        found["calls"][call["index"]][1] += call["function"]["arguments"]
    found["logprobs"] += (choice["logprobs"] or {}).get("content") or []
    found["ids"] += choice.get("token_ids") or []
    found["reason"] = choice["finish_reason"]


@given(st.lists(saids, min_size=1, max_size=3), wanted)
def test_any_split_into_deltas(said: list[Said], fields: dict[str, Any]) -> None:
    """Text, reasoning, calls, logprobs, token ids, finish reason and usage do not depend on how tokens are split into
    deltas.
    """
    assert whole(said, fields) == whole([each(one) for one in said], fields)


@given(st.lists(saids, min_size=1, max_size=3), wanted)
def test_streamed_or_not(said: list[Said], fields: dict[str, Any]) -> None:
    """The events of a stream add up to the answer that is not streamed."""
    assert streamed(said, fields) == whole(said, fields)


@given(st.builds(Said, proper.map(lambda found: sum(found, ())), st.just("stop"), cuts))
def test_logprobs_spell_the_content(said: Said) -> None:
    """The bytes of the logprob entries spell the content, and each entry has its own token's logprob."""
    (choice,) = whole([said], {"logprobs": True}, PLAIN)["choices"]
    assert b"".join(bytes(one["bytes"]) for one in choice["logprobs"]) == choice["content"].encode()
    assert [one["logprob"] for one in choice["logprobs"]] == [-0.5 - token for token in said.tokens]


held = st.sampled_from([tokens(text) for text in ("", " STO", "Hello é", "<tool")])
ends = st.builds(Said, st.tuples(answers, held).map(lambda parts: parts[0] + parts[1]), st.just("stop"), cuts)
rest = st.sampled_from([{"logprobs": True}, {"return_token_ids": True}, {"stop": ["STO!", "Hello é!", "<toolbox"]}])


@given(ends, rest)
def test_fast_path_for_plain_text(said: Said, fields: dict[str, Any]) -> None:
    """The fast path for plain text gives the same text, reasoning, calls and usage as a request with more options."""
    more, plain = (whole([said], wanted, PLAIN) for wanted in (fields, {}))
    assert plain["usage"] == more["usage"]
    for name in ("content", "reasoning", "calls", "reason"):
        assert plain["choices"][0][name] == more["choices"][0][name]


@settings(max_examples=20)
@given(cuts)
def test_a_token_with_reasoning_and_content(cuts: tuple[int, ...]) -> None:
    """A token with reasoning and content has its logprob with the part in which it ends; a stop string removes the
    tokens that begin in it.
    """
    said = Said((*tokens("<think>Hm.</think"), *tokens(">H"), *tokens("ello, STOP")), "stop", cuts)
    for stop, shown in ((None, b">Hello, STOP"), ("o", b">Hell"), ("STOP", b">Hello, ST")):
        (choice,) = streamed([said], {"logprobs": True, "stop": stop})["choices"]
        assert b"".join(bytes(one["bytes"]) for one in choice["logprobs"]) == shown
        assert choice["reasoning"] == "Hm."


@settings(max_examples=20)
@given(cuts)
def test_reasoning_content_and_calls(cuts: tuple[int, ...]) -> None:
    """An answer with reasoning, content and two tool calls is parsed completely, however it is split."""
    said = Said(tokens(f"<think>Hm, é.</think>Hello{CALL}{CALL}"), "stop", cuts)
    answer = streamed([said], {"tools": [TOOL]})
    arguments = ("add", '{"a": 1, "ä": "é😀"}')
    (choice,) = answer["choices"]
    assert (choice["reasoning"], choice["content"].strip()) == ("Hm, é.", "Hello")
    assert (choice["calls"], choice["reason"]) == ([arguments, arguments], "tool_calls")
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_a_truncated_call() -> None:
    """An answer cut by max_tokens in a tool call ends with "length", even if an earlier call is complete."""
    (choice,) = whole([Said(tokens(f"{CALL}<tool_call>"), "length")], {"tools": [TOOL]})["choices"]
    assert (len(choice["calls"]), choice["reason"]) == (1, "length")


@pytest.mark.parametrize(("reason", "content"), [("length", "Hello"), ("stop", 'Hello <tool_call>\n{"name": "ad')])
def test_the_start_of_a_truncated_call(reason: FinishReason, content: str) -> None:
    """The start of a call that max_tokens cut off before its arguments is not content. If the model ended there, it was
    no call."""
    said = Said(tokens('Hello <tool_call>\n{"name": "ad'), reason)
    for answer in (whole([said], {"tools": [TOOL]}), streamed([said], {"tools": [TOOL]})):
        (choice,) = answer["choices"]
        assert (choice["content"], choice["calls"], choice["reason"]) == (content, [], reason)


HALF = 0xC3
"""First byte of a two-byte character, as a token."""


@pytest.mark.parametrize(
    ("said", "thought", "spelled"),
    [
        (tokens("<think>Hm.</think>Hello"), 4, b"Hello"),
        (tokens(f"<think>Hm.</think>{CALL}"), 4, b""),
        (tokens(f"Hello{CALL}"), 0, b"Hello"),
        ((*tokens("<think>Hm.</think>"), HALF, 0xA9, *tokens("x")), 4, b"\xc3\xa9x"),
        ((*tokens("<think>H"), HALF, 0xA9, *tokens("</think>x")), 4, b"x"),
        ((*tokens("<think>Hm."), HALF), 3, b""),
        ((*tokens(f"Hello{CALL}"), HALF), 0, b"Hello"),
        ((*tokens("Hello"), HALF), 0, b"Hello\xc3"),
    ],
)
def test_assignment_of_tokens_to_parts(said: Tokens, thought: int, spelled: bytes) -> None:
    """A token counts as reasoning, or has its logprob with the content, by the character that it is a part of. The mark
    that ends reasoning counts as reasoning, the one that begins it does not.
    """
    fields = {"logprobs": True, "tools": [TOOL]}
    answer = streamed([each(Said(said, "stop"))], fields)
    assert answer == whole([Said(said, "stop")], fields)
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == thought
    assert b"".join(bytes(one["bytes"]) for one in answer["choices"][0]["logprobs"]) == spelled
