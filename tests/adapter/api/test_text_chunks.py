"""Text completions: a stream and a whole answer from the same events have the same content."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adapter.api.common.head import Head
from adapter.api.common.large_json import encode_in_blocks
from adapter.api.common.logprob_types import TextLogprobs
from adapter.api.completions.batch import ChoicePrefix
from adapter.api.completions.collect import TextCollector
from adapter.api.completions.stream import TextChunkWriter
from adapter.decode.events import Event, Finished, TextDelta, Used
from adapter.decode.token_logprobs import TokenLogprob
from adapter.decode.usage import PromptTokensDetails, Usage
from subnet.tensors import token_ids

HEAD = Head(id="cmpl-1", created=7, model="m", system_fingerprint="fp_1")
USAGE = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3, prompt_tokens_details=PromptTokensDetails())
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
NUMBERS = st.integers(0, 9)
OPENINGS = st.builds(
    ChoicePrefix,
    text=TEXTS,
    logprobs=st.none()
    | st.just(TextLogprobs(tokens=["a"], token_logprobs=[None], top_logprobs=[None], text_offset=[0])),
    prompt_token_ids=st.none() | st.lists(NUMBERS).map(token_ids),
)


@st.composite
def deltas(draw: st.DrawFn, choice: int) -> TextDelta:
    """Draw a text delta, which may have two logprobs and may have token ids."""
    text = draw(TEXTS)
    logprobs = draw(st.none() | st.just([TokenLogprob(token="ö", logprob=-1.0, bytes=[0xC3], top_logprobs=[])] * 2))
    offsets = None if logprobs is None else draw(st.lists(NUMBERS, min_size=2, max_size=2))
    return TextDelta(choice, text, logprobs, draw(st.none() | st.lists(NUMBERS)), offsets)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[ChoicePrefix], list[Event]]:
    """Draw the interleaved events of an answer to two prompts with two choices each."""
    waiting: list[list[Event]] = [
        [*draw(st.lists(deltas(choice), max_size=4)), Finished(choice, draw(st.sampled_from(["stop", "length"])))]
        for choice in range(4)
    ]
    events: list[Event] = []
    while any(waiting):
        one = draw(st.sampled_from([events for events in waiting if events]))
        events.append(one.pop(0))
    return draw(st.lists(OPENINGS, min_size=2, max_size=2)), [*events, Used(USAGE)]


def put_together(chunks: list[Any]) -> list[Any]:
    """Assemble the choices of an answer from its chunks, as a client does."""
    choices: list[Any] = [{"index": index, "text": "", "logprobs": None} for index in range(4)]
    for chunk in chunks:
        for part in chunk["choices"]:
            whole = choices[part["index"]]
            whole["text"] += part["text"]
            whole["finish_reason"] = part["finish_reason"]
            for name in part.keys() & {"token_ids", "prompt_token_ids"}:
                whole[name] = whole.get(name, []) + part[name]
            for name, values in (part["logprobs"] or {}).items():
                whole["logprobs"] = whole["logprobs"] or {}
                whole["logprobs"][name] = whole["logprobs"].get(name, []) + values
    return choices


@given(answers())
def test_stream_equals_whole_answer(answer: tuple[list[ChoicePrefix], list[Event]]) -> None:
    """The chunks of a stream add up to the answer that is not streamed."""
    openings, events = answer
    writer = TextChunkWriter(HEAD, openings, print, choices=2, include_usage=True)
    collector = TextCollector(HEAD, openings, choices=2, logprobs=True)
    data = b""
    for event in events:
        collector.receive(event)
        data += writer.encode(event)
    *chunks, last = [json.loads(block[6:]) for block in data.split(b"\n\n")[:-1]]
    whole = json.loads(b"".join(encode_in_blocks(collector.build())))
    streamed = put_together(chunks)
    for one, other in zip(whole["choices"], streamed, strict=True):
        assert one | {"logprobs": None} == other | {"logprobs": None}
        if one["logprobs"] is not None and not one["logprobs"]["tokens"]:
            assert not one["text"], "a text without logprobs has none, not empty ones"
            one["logprobs"] = None
        assert one["logprobs"] == other["logprobs"]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


@given(TEXTS)
def test_fast_path_for_plain_text(text: str) -> None:
    """The fast path for plain text gives the same chunk as the general path."""
    short = TextChunkWriter(HEAD, [ChoicePrefix()], print).encode(TextDelta(0, text))
    long = TextChunkWriter(HEAD, [ChoicePrefix()], print).encode(TextDelta(0, text, None, []))
    assert json.loads(short[6:])["choices"] == [
        {name: value for name, value in choice.items() if name != "token_ids"}
        for choice in json.loads(long[6:])["choices"]
    ]
    assert json.loads(short[6:])["choices"][0]["text"] == text
