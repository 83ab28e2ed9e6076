"""Parsing of gpt-oss's format, compared to the package openai-harmony."""

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
from adapter.generation.model_registry import LoadedTokenizer, Model
from adapter.generation.output_options import OutputOptions
from adapter.tools import ModelFormat, select_format
from adapter.tools.formats.harmony_header import (
    MAX_HEADER,
    N_ORDINARY,
    Header,
    ReadHeader,
    encoding_of,
    load,
    read_as_text,
)
from subnet.generation import Delta, TokenLogprobs
from subnet.models.patterns import PATTERNS
from subnet.node_info import ModelCard, TokenizerArtefact, digest
from tests.adapter.tools.test_parsers import FRAGMENTS, PARIS, TIME, WRITTEN, Message, message, parts_of

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
    """Load gpt-oss's tokens, which a package of the test dependencies contains."""
    if not CLIENTS.exists():
        pytest.skip(f"there is no {CLIENTS}: `make test` makes it")
    (path,) = CLIENTS.glob(f"lib/*/site-packages/litellm/litellm_core_utils/tokenizers/{CACHED}")
    pieces = [b64decode(line.split()[0]) for line in path.read_bytes().splitlines()]
    assert len(pieces) == N_ORDINARY
    pieces += [b"<|reserved_%d|>" % token for token in range(N_ORDINARY, 201_088)]
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
        control=list(range(N_ORDINARY, len(pieces))),
        pattern=PATTERNS["gpt-4o"],
        merges=list(range(N_ORDINARY)),
    ).to_bytes()
    card = ModelCard(id="m", context_length=8, tokenizer=digest(artefact), chat_template="<|channel|> <|message|>")
    return Model(card, LoadedTokenizer(card, artefact))


@pytest.fixture(scope="module")
def read_header(pieces: list[bytes]) -> ReadHeader:
    return load(pieces)


@pytest.fixture(scope="module", params=["package", "text"])
def kind(request: pytest.FixtureRequest) -> ModelFormat:
    """Parsers of headers: the package's, and the one for other tokens."""
    return select_format("", "harmony") if request.param == "text" else request.getfixturevalue("model").format


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
        # Headers that the package rejects:
        ("<|start|>", Header(None, None)),
        ("<|start|>nobody<|channel|>final", Header("final", None)),
        ("<|channel|>", Header(None, None)),
        ("<|channel|> analysis", Header("analysis", None)),
        ("<|channel|>commentary to=functions.f and more", Header("commentary", "functions.f")),
    ],
)
def test_headers(read_header: ReadHeader, text: str, header: Header) -> None:
    """Headers are parsed alike by the package and as text."""
    assert read_header(text) == read_as_text(text) == header


def test_the_package_reads_headers(read_header: ReadHeader) -> None:
    """The package parses recipients without `to=`, but is not used for very long headers."""
    assert read_header("<|channel|>commentary functions.f") == Header("commentary", "functions.f")
    assert read_header(f"<|channel|>commentary functions.{'f' * MAX_HEADER}") == Header("commentary", None)


def test_the_vocabulary_is_the_models_own(model: Model) -> None:
    """The model's own tokens provide the package's vocabulary."""
    text = "<|channel|>commentary functions.get_time<|message|>{}<|call|>"
    assert message(parts_of(model.format, text)) == Message(calls=[TIME])
    assert message(parts_of(select_format("", "harmony"), text)) == Message("{}")


@given(mark=st.sampled_from(["", "<|start|>", "<|channel|>"]), text=st.text())
def test_no_header_raises(read_header: ReadHeader, mark: str, text: str) -> None:
    """No header raises an error."""
    assert isinstance(read_header(mark + text), Header)


def test_other_tokens(pieces: list[bytes]) -> None:
    """Headers of a model with other tokens than gpt-oss are parsed as text, without a download."""
    assert load([*pieces[1:N_ORDINARY], pieces[0]]) is read_as_text
    assert load([]) is read_as_text


def test_the_environment_stays(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's environment variable for vocabularies is not used, and is restored."""
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
    """Return channel, recipient and text of each message that the package parses, and if it has ended."""
    for one in parser.messages:
        yield one.channel, one.recipient, one.content[0].text, True
    yield parser.current_channel, parser.current_recipient, parser.current_content, False


def expected(parser: Any) -> Message:
    """Convert the package's messages to the format of OpenAI's API."""
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
def test_conversations_of_the_package(
    kind: ModelFormat, encoding: Any, messages: list[Any], data: st.DataObject
) -> None:
    """A conversation written by the package is parsed as the package does, after each token and in any pieces."""
    tokens = [token for one in messages for token in encoding.render(one)]
    assert encoding.decode(tokens[:2]) == PROMPT
    tokens = tokens[2 : data.draw(st.integers(2, len(tokens)))]
    parser = StreamableParser(encoding, Role.ASSISTANT, strict=False)
    for token in tokens:
        parser.process(token)
    text = encoding.decode(tokens, errors="ignore")  # without an incomplete character
    assume(text.strip() != "to")  # not a header yet: it may be the first word of a text
    pieces = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    assert message(parts_of(kind, pieces)) == expected(parser)


def test_tokens_of_a_prompt(model: Model, encoding: Any) -> None:
    """A rendered prompt is tokenized as the package does."""
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
def test_malformed_answers(kind: ModelFormat, text: str, found: Message) -> None:
    """Answers may start within a header or lack marks, and text outside of messages is content."""
    assert message(parts_of(kind, text)) == message(parts_of(kind, [text])) == found


GARBAGE = st.lists(
    st.sampled_from([*(mark.decode() for mark in SPECIAL), *FRAGMENTS, " to=", "to=functions.f", "final", "analysis"])
    | st.sampled_from([text for name, text, _ in WRITTEN if name == "harmony"])
    | st.text(max_size=3),
    max_size=14,
).map("".join)


@given(text=GARBAGE, data=st.data())
def test_any_text_in_any_pieces(kind: ModelFormat, text: str, data: st.DataObject) -> None:
    """Any text in any pieces gives the same message, and the sizes of parts add up to its length."""
    parts = parts_of(kind, cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=8))))
    assert message(parts) == message(parts_of(kind, [text]))
    assert sum(part.size for part in parts) == len(text)


def events(model: Model, tokens: Sequence[int], **view: Any) -> list[Event]:
    """Return the events of an answer that arrives token by token."""
    reader = model.reader(0, OutputOptions(format=model.format, tools={"get_weather": None}, logprobs=0, **view))
    found: list[Event] = []
    reader.emit = found.append
    for token in tokens:
        reader.feed(Delta(0, [token], [TokenLogprobs(-1.0, (), ())]))
    reader.feed(Delta(0, [], finish_reason="stop"))
    return found


def test_an_answer_in_tokens(model: Model, encoding: Any) -> None:
    """gpt-oss's tokens are converted to events up to a stop string, with the logprobs of content."""
    answer = [written("analysis", None, None, "Count three."), written("final", None, None, "One two three four")]
    tokens = [token for one in answer for token in encoding.render(one)][2:-1]
    found = events(model, tokens, stops=(" three",))
    assert "".join(event.text for event in found if isinstance(event, ReasoningDelta)) == "Count"
    found = events(model, tokens, stops=(" four",))
    assert "".join(event.text for event in found if isinstance(event, ReasoningDelta)) == "Count three."
    shown = [event for event in found if isinstance(event, TextDelta)]
    texts = [token.token for event in shown for token in event.logprobs or []]
    assert "".join(texts) == "".join(event.text for event in shown) == "One two three"
    assert found[-1] == Finished(0, "stop", " four")


def test_a_call_in_tokens(model: Model, encoding: Any) -> None:
    """Arguments of a call are emitted before the call is complete."""
    call = written("commentary", "functions.get_weather", "<|constrain|>json", PARIS[1])
    found = events(model, encoding.render(call)[2:-1])
    (begun,) = (event for event in found if isinstance(event, CallStarted))
    arguments = [event.text for event in found if isinstance(event, CallArguments)]
    assert (begun.name, "".join(arguments)) == PARIS
    assert len(arguments) > 2
    assert found[-1] == Finished(0, "tool_calls")
