"""Tokenizer artefacts that a broken or hostile node may send, and those that a file would need."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet.errors import InvalidRequest, SettingsError, WireError
from subnet.models.encoders import load_encoder
from subnet.node_info import MAX_ARTEFACT, MAX_PIECE, MAX_PIECES, ModelCard, TokenizerArtefact
from subnet.protocols.mock import BYTE_LEVEL
from subnet.wire import frames
from subnet.wire.messages import ArtefactReply

BYTES = TokenizerArtefact.from_bytes(BYTE_LEVEL)
SIZE = len(BYTES.pieces)


def artefact(**changes: Any) -> TokenizerArtefact:
    return msgspec.structs.replace(BYTES, **changes)


INVALID = {
    "a piece of 8 MB": artefact(pieces=[*BYTES.pieces, b"x" * 8_000_000]),
    "a piece that is one byte too long": artefact(pieces=[*BYTES.pieces, b"x" * (MAX_PIECE + 1)]),
    "too many pieces": artefact(pieces=[b""] * (MAX_PIECES + 1)),
    "a control token beyond the pieces": artefact(control=[SIZE]),
    "a negative control token": artefact(control=[-1]),
    "a user-defined token beyond the pieces": artefact(user_defined=[SIZE]),
    "a negative user-defined token": artefact(user_defined=[-1]),
    "a merge beyond the pieces": artefact(merges=[SIZE]),
    "a negative merge": artefact(merges=[-1]),
    "a first token beyond the pieces": artefact(bos_id=SIZE),
    "an id beyond 64 bits": artefact(control=[2**64 - 1]),
    "a pattern of 1 MB": artefact(pattern="x" * 2**20),
    "too many passes": artefact(passes=["x"] * 1000),
    "more than a frame can have": artefact(tokenizer_json="x" * MAX_ARTEFACT),
}


@pytest.mark.parametrize("wrong", INVALID)
def test_an_artefact_beyond_the_limits_is_refused(wrong: str) -> None:
    """It is refused where it is received, and where it would be sent."""
    with pytest.raises(WireError, match="invalid tokenizer artefact"):
        TokenizerArtefact.from_bytes(msgspec.msgpack.encode(INVALID[wrong]))
    with pytest.raises(SettingsError, match="invalid tokenizer artefact"):
        INVALID[wrong].to_bytes()


def test_an_artefact_at_the_limits_is_accepted() -> None:
    """The longest piece, and the last id."""
    largest = artefact(pieces=[*BYTES.pieces, b"x" * MAX_PIECE], control=[SIZE], bos_id=SIZE)
    assert TokenizerArtefact.from_bytes(largest.to_bytes()) == largest


def test_the_largest_artefact() -> None:
    """An artefact may have exactly the maximum size, and its reply fits into a frame."""
    rest = len(msgspec.msgpack.encode(artefact(tokenizer_json="x" * 2**16))) - 2**16
    largest = artefact(tokenizer_json="x" * (MAX_ARTEFACT - rest)).to_bytes()
    assert len(largest) == MAX_ARTEFACT
    reply = frames.decode(frames.encode(ArtefactReply(2**32 - 1, largest)))
    assert isinstance(reply, ArtefactReply)
    assert reply.data == largest
    with pytest.raises(WireError, match="exceed the maximum"):
        TokenizerArtefact.from_bytes(largest + b"x")


IDS = st.lists(st.integers(0, 5), max_size=8)


@settings(max_examples=60)
@given(
    pieces=st.lists(st.binary(max_size=3), min_size=6, max_size=6),
    ids=st.tuples(IDS, IDS, IDS),
    pattern=st.none() | st.sampled_from(["(?s:.+)", "(", r"\p{L}+", "", "(?=a)"]),
    passes=st.lists(st.sampled_from([r"\p{N}", "[", "a*"]), max_size=2),
    by_character=st.booleans(),
    json=st.none() | st.just("{}") | st.text(max_size=4),
)
def test_an_arbitrary_artefact_is_loaded_or_refused(
    pieces: list[bytes],
    ids: tuple[list[int], list[int], list[int]],
    pattern: str | None,
    passes: list[str],
    by_character: bool,
    json: str | None,
) -> None:
    """Whatever a node sends, loading and encoding end with tokens of the vocabulary, or with an error."""
    control, user_defined, merges = ids
    made = TokenizerArtefact(
        pieces=pieces,
        control=control,
        user_defined=user_defined,
        merges=merges,
        pattern=pattern,
        passes=passes,
        by_character=by_character,
        tokenizer_json=json,
    )
    try:
        encoder = load_encoder(TokenizerArtefact.from_bytes(made.to_bytes()))
    except SettingsError:
        return
    with suppress(InvalidRequest):
        assert set(encoder.encode("a 1\u00e9").tolist()) <= set(range(len(pieces)))


CARD = ModelCard(id="m", context_length=1, tokenizer="0" * 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "m" * 2000},
        {"context_length": -1},
        {"context_length": 2**62},
        {"tokenizer": "../../../etc/passwd"},
        {"tokenizer": "0" * 64 + "\n"},
        {"chat_template": "x" * 2**21},
        {"tool_template": "x" * 2**21},
        {"bos_token": "x" * 5000},
        {"eos_token": "x" * 5000},
        {"stop_tokens": (-1,)},
        {"stop_tokens": (0,) * 2000},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_card_beyond_the_limits_is_refused(wrong: dict[str, Any]) -> None:
    """Neither a model's name nor a number of its card can be of any size."""
    data = msgspec.msgpack.encode(CARD)
    assert msgspec.msgpack.decode(data, type=ModelCard) == CARD
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.structs.replace(CARD, **wrong)), type=ModelCard)
