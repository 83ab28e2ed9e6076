"""gpt-oss's format: what the package openai-harmony says of an answer is what is read of it."""

from __future__ import annotations

import json
import os
import sys
from base64 import b64decode
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from openai_harmony import Conversation, Role, StreamableParser  # type: ignore[import-untyped]
from openai_harmony import Message as Written

from adapter.decode.events import CallArguments, CallStarted, Event, Finished, ReasoningDelta, TextDelta
from adapter.generation.models import LoadedTokenizer, Model
from adapter.generation.output_options import OutputOptions
from adapter.tools import Kind, choose
from adapter.tools.formats.harmony_header import LONGEST, RANKS, Header, ReadHeader, encoding_of, load, read_as_text
from subnet.generation import Delta, TokenLogprobs
from subnet.models.patterns import PATTERNS
from subnet.node_info import ModelCard, TokenizerArtefact, digest
from tests.test_parsers import FRAGMENTS, PARIS, TIME, WRITTEN, Message, message, parts_of

CLIENTS = Path(sys.prefix) / "clients"
CACHED = "fb374d419588a4632f3f557e76b4b70aebbca790"  # what tiktoken calls o200k_base in its cache
SPECIAL = {
    b"<|return|>": 200_002,
    b"<|constrain|>": 200_003,
    b"<|channel|>": 200_005,
    b"<|start|>": 200_006,
    b"<|end|>": 200_007,
    b"<|message|>": 200_008,
    b"<|call|>": 200_012,
}
PROMPT = "<|start|>assistant"


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    """gpt-oss's tokens. One of the clients that are tested here brings them."""
    if not CLIENTS.exists():
        pytest.skip(f"there is no {CLIENTS}: `make test` makes it")
    (path,) = CLIENTS.glob(f"lib/*/site-packages/litellm/litellm_core_utils/tokenizers/{CACHED}")
    pieces = [b64decode(line.split()[0]) for line in path.read_bytes().splitlines()]
    assert len(pieces) == RANKS
    pieces += [b"<|reserved_%d|>" % token for token in range(RANKS, 201_088)]
    for text, token in SPECIAL.items():
        pieces[token] = text
    return pieces


@pytest.fixture(scope="module")
def encoding(pieces: list[bytes]) -> Any:
    return encoding_of(pieces)


@pytest.fixture(scope="module")
def model(pieces: list[bytes]) -> Model:
    artefact = TokenizerArtefact(
        pieces=pieces,
        control=list(range(RANKS, len(pieces))),
        pattern=PATTERNS["gpt-4o"],
        merges=list(range(RANKS)),
    ).to_bytes()
    card = ModelCard(id="m", context_length=8, tokenizer=digest(artefact), chat_template="<|channel|> <|message|>")
    return Model(card, LoadedTokenizer(card, artefact))


@pytest.fixture(scope="module")
def read_header(pieces: list[bytes]) -> ReadHeader:
    return load(pieces)


@pytest.fixture(scope="module", params=["package", "text"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """gpt-oss's, and one of a model with other tokens."""
    return choose("", "harmony") if request.param == "text" else request.getfixturevalue("model").kind


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("", Header(None, None)),
        ("<|channel|>analysis", Header("analysis", None)),
        ("<|start|>assistant<|channel|>final", Header("final", None)),
        (" to=functions.f<|channel|>commentary <|constrain|>json", Header("commentary", "functions.f")),
        ("<|channel|>commentary to=functions.f<|constrain|>json", Header("commentary", "functions.f")),
        ("<|channel|>final <|constrain|>JSON", Header("final", None)),
        ("<|start|>functions.f to=assistant<|channel|>commentary", Header("commentary", "assistant")),
        # What the package refuses:
        ("<|start|>", Header(None, None)),
        ("<|start|>nobody<|channel|>final", Header("final", None)),
        ("<|channel|>", Header(None, None)),
        ("<|channel|> analysis", Header("analysis", None)),
        ("<|channel|>commentary to=functions.f and more", Header("commentary", "functions.f")),
    ],
)
def test_headers(read_header: ReadHeader, text: str, header: Header) -> None:
    """The package finds the same in them as reading them as text does, which is done where it finds none."""
    assert read_header(text) == read_as_text(text) == header


def test_the_package_reads_headers(read_header: ReadHeader) -> None:
    """It knows a recipient without `to=`; but not of a header so long that other answers would wait for it."""
    assert read_header("<|channel|>commentary functions.f") == Header("commentary", "functions.f")
    assert read_header(f"<|channel|>commentary functions.{'f' * LONGEST}") == Header("commentary", None)


def test_a_model_brings_what_the_package_needs(model: Model) -> None:
    """Its own tokens are the vocabulary: without them this call is content."""
    text = "<|channel|>commentary functions.get_time<|message|>{}<|call|>"
    assert message(parts_of(model.kind, text)) == Message(calls=[TIME])
    assert message(parts_of(choose("", "harmony"), text)) == Message("{}")


@given(mark=st.sampled_from(["", "<|start|>", "<|channel|>"]), text=st.text())
def test_no_header_raises(read_header: ReadHeader, mark: str, text: str) -> None:
    """Whatever a model writes there."""
    assert isinstance(read_header(mark + text), Header)


def test_other_tokens(pieces: list[bytes]) -> None:
    """A model that has others than gpt-oss has its headers read as text; nothing is downloaded instead."""
    assert load([*pieces[1:RANKS], pieces[0]]) is read_as_text
    assert load([]) is read_as_text


def test_the_environment_stays(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's own folder of vocabularies is neither asked nor forgotten."""
    monkeypatch.setenv("TIKTOKEN_ENCODINGS_BASE", "/nowhere")
    assert load(pieces) is not read_as_text
    assert os.environ["TIKTOKEN_ENCODINGS_BASE"] == "/nowhere"
    monkeypatch.delenv("TIKTOKEN_ENCODINGS_BASE")
    load([])
    assert "TIKTOKEN_ENCODINGS_BASE" not in os.environ


PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda text: "<|" not in text)
ARGUMENTS = st.dictionaries(PLAIN, PLAIN, max_size=2).map(lambda value: json.dumps(value, ensure_ascii=False))


def written(channel: str | None, recipient: str | None, kind: str | None, text: str) -> Any:
    one = Written.from_role_and_content(Role.ASSISTANT, text)
    one.channel, one.recipient, one.content_type = channel, recipient, kind
    return one


CHANNEL = st.sampled_from(["analysis", "commentary", "final"])
MESSAGES = st.one_of(
    st.builds(written, CHANNEL | st.none(), st.none(), st.none(), PLAIN),
    st.builds(written, CHANNEL, st.sampled_from(["python", "browser.search"]), st.sampled_from(["code", None]), PLAIN),
    st.builds(
        written,
        CHANNEL | st.none(),
        st.sampled_from(["functions.get_weather", "functions.get_time"]),
        st.sampled_from(["<|constrain|>json", "json", "code", None]),
        ARGUMENTS | st.just(""),
    ),
)


def understood(parser: Any) -> Iterator[tuple[str | None, str | None, str, bool]]:
    """Channel, recipient and text of each message that the package finds, and whether it has ended."""
    for one in parser.messages:
        yield one.channel, one.recipient, one.content[0].text, True
    yield parser.current_channel, parser.current_recipient, parser.current_content, False


def expected(parser: Any) -> Message:
    """What the package finds, as OpenAI's API has it."""
    whole = Message()
    for channel, recipient, text, ended in understood(parser):
        if (recipient or "").startswith("functions."):
            whole.calls.append((str(recipient).removeprefix("functions."), text or ("{}" if ended else "")))
        elif channel == "analysis" or (recipient and channel != "final"):
            whole.reasoning += text
        else:
            whole.content += text
    return whole


def cut(text: str, cuts: Sequence[int]) -> list[str]:
    return [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])]


@given(messages=st.lists(MESSAGES, min_size=1, max_size=4), data=st.data())
def test_all_is_as_the_package_reads_it(kind: Kind, encoding: Any, messages: list[Any], data: st.DataObject) -> None:
    """A conversation that the package writes is read by us as by the package, after any of its tokens, in pieces."""
    tokens = [token for one in messages for token in encoding.render(one)]
    assert encoding.decode(tokens[:2]) == PROMPT
    tokens = tokens[2 : data.draw(st.integers(2, len(tokens)))]
    parser = StreamableParser(encoding, Role.ASSISTANT, strict=False)
    for token in tokens:
        parser.process(token)
    text = encoding.decode(tokens, errors="ignore")  # without a character of which only a part is there
    assume(text.strip() != "to")  # which is not yet a header: it may be the first word of a text
    pieces = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    assert message(parts_of(kind, pieces)) == expected(parser)


def test_our_tokens_are_the_packages(model: Model, encoding: Any) -> None:
    """What a template writes becomes the tokens of which the package makes the same text."""
    messages = [
        Written.from_role_and_content(Role.USER, "Wie heißt 3.14159?  \n\n 'll  日本\t<b>"),
        written("analysis", None, None, "Hm … it's  π."),
        written("commentary", "functions.f", "<|constrain|>json", '{"a": "<b>"}'),
    ]
    tokens = encoding.render_conversation(Conversation.from_messages(messages))
    text = encoding.decode_utf8(tokens)
    assert model.tokenizer.encode_prompt(text).tolist() == tokens
    assert model.text(tokens) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>',
            Message(calls=[PARIS]),
        ),
        ("to=functions.get_time code<|message|><|call|>", Message(calls=[TIME])),
        ("<|message|>Hi<|return|>", Message("Hi")),
        ("<|channel|>final <|constrain|>JSON<|message|>{}", Message("{}")),
        ("<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b", Message("b", "a")),
        ("<|channel|>analysis<|message|>a<|end|><|channel|>final<|message|>b", Message("b", "a")),
        (" to=functions.get_ti", Message()),
        (" to=functions.get_time<|channel|>comm", Message()),
        (" to=do is easy", Message(" to=do is easy")),
        (" to=do<b> is easy", Message(" to=do<b> is easy")),
        (" \n", Message(" \n")),
        ("<|channel|>final<|end|>Hi", Message("<|channel|>final<|end|>Hi")),
        ("<|channel|>final<|return|><|start|>assistant<|message|>Hi", Message("<|channel|>final<|return|>Hi")),
    ],
)
def test_what_the_package_would_not_write(kind: Kind, text: str, found: Message) -> None:
    """The answer may begin within a header; marks may be missing; and what is no message is content."""
    assert message(parts_of(kind, text)) == message(parts_of(kind, [text])) == found


GARBAGE = st.lists(
    st.sampled_from([*(mark.decode() for mark in SPECIAL), *FRAGMENTS, " to=", "to=functions.f", "final", "analysis"])
    | st.sampled_from([text for name, text, _ in WRITTEN if name == "harmony"])
    | st.text(max_size=3),
    max_size=14,
).map("".join)


@given(text=GARBAGE, data=st.data())
def test_any_cut_of_anything(kind: Kind, text: str, data: st.DataObject) -> None:
    """Its pieces give the message of the whole, and account for all of it."""
    parts = parts_of(kind, cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=8))))
    assert message(parts) == message(parts_of(kind, [text]))
    assert sum(part.size for part in parts) == len(text)


def events(model: Model, tokens: Sequence[int], **view: Any) -> list[Event]:
    """Of an answer of which each token comes for itself."""
    reader = model.reader(0, OutputOptions(kind=model.kind, tools={"get_weather": None}, logprobs=0, **view))
    found: list[Event] = []
    reader.emit = found.append
    for token in tokens:
        reader.feed(Delta(0, [token], [TokenLogprobs(-1.0, (), ())]))
    reader.feed(Delta(0, [], finish_reason="stop"))
    return found


def test_an_answer_in_tokens(model: Model, encoding: Any) -> None:
    """From gpt-oss's own tokens to events, up to a stop string, with the logprobs of what is shown."""
    answer = [written("analysis", None, None, "Count three."), written("final", None, None, "One two three four")]
    tokens = [token for one in answer for token in encoding.render(one)][2:-1]
    found = events(model, tokens, stops=(" three",))
    assert "".join(event.text for event in found if isinstance(event, ReasoningDelta)) == "Count"
    found = events(model, tokens, stops=(" four",))
    assert "".join(event.text for event in found if isinstance(event, ReasoningDelta)) == "Count three."
    shown = [event for event in found if isinstance(event, TextDelta)]
    told = [token.token for event in shown for token in event.logprobs or []]
    assert "".join(told) == "".join(event.text for event in shown) == "One two three"
    assert found[-1] == Finished(0, "stop")


def test_a_call_in_tokens(model: Model, encoding: Any) -> None:
    """Its arguments come while they are written."""
    call = written("commentary", "functions.get_weather", "<|constrain|>json", PARIS[1])
    found = events(model, encoding.render(call)[2:-1])
    (begun,) = (event for event in found if isinstance(event, CallStarted))
    arguments = [event.text for event in found if isinstance(event, CallArguments)]
    assert (begun.name, "".join(arguments)) == PARIS
    assert len(arguments) > 2
    assert found[-1] == Finished(0, "tool_calls")
