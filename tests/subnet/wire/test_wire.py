"""The wire protocol: encoded messages decode to equal ones, and invalid frames are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnet.errors import (
    AnswerTimeout,
    NoNodeAvailable,
    RepeatedFailure,
    SessionClosed,
    SettingsError,
    SubnetError,
    WireError,
    from_code,
)
from subnet.generation import Delta, FinishReason, Sampling, TokenLogprobs
from subnet.node_info import MAX_PIECES
from subnet.protocols.mock import MockProtocol
from subnet.tensors import Tensor, pack, token_ids, unpack
from subnet.wire import columns, frames
from subnet.wire.messages import (
    Cancel,
    ChoiceStart,
    Deltas,
    EmbedReply,
    EmbedRequest,
    Failed,
    Generate,
    InfoReply,
    InfoRequest,
    RowLogprobs,
    ScoreReply,
    ScoreRequest,
    TokenizeReply,
    TokenizeRequest,
)
from subnet.wire.outbox import to_frames

token_id_numbers = st.integers(0, MAX_PIECES - 1)
# Logprobs: finite, and not positive.
float32 = st.floats(max_value=0, width=32, allow_nan=False, allow_infinity=False)


@st.composite
def token_logprobs(draw: st.DrawFn) -> TokenLogprobs:
    width = draw(st.integers(0, 5))
    ids = draw(st.lists(token_id_numbers, min_size=width, max_size=width))
    tops = draw(st.lists(float32, min_size=width, max_size=width))
    return TokenLogprobs(draw(float32), tuple(ids), tuple(tops))


@st.composite
def rows(draw: st.DrawFn) -> columns.Row:
    tokens = draw(st.lists(token_id_numbers, max_size=6))
    logprobs = draw(st.none() | st.lists(token_logprobs(), min_size=len(tokens), max_size=len(tokens)))
    end: FinishReason | None = draw(st.sampled_from([None, "stop", "length"]))
    delta = Delta(draw(st.integers(0, 65535)), tokens, logprobs, end, draw(st.integers(0, 99)))
    return draw(st.integers(0, 2**32 - 1)), delta


@given(st.lists(rows(), max_size=12))
def test_columns_round_trip(step: list[columns.Row]) -> None:
    """Unpacking a frame returns the deltas that were packed into it."""
    frame = frames.decode(frames.encode(columns.pack(step)))
    assert isinstance(frame, Deltas)
    assert list(columns.unpack(frame)) == step


COLUMNS = st.builds(
    Deltas,
    calls=st.binary(max_size=8),
    choices=st.binary(max_size=4),
    counts=st.sampled_from([b"", b"\x01\x00", b"\x00\x00\x01\x00", b"\x02\x00"]),
    tokens=st.binary(max_size=8),
    ends=st.binary(max_size=2),
    cached=st.dictionaries(st.integers(-2, 2), st.integers(-1, 2**40), max_size=1),
    logprobs=st.dictionaries(
        st.integers(-2, 2),
        st.builds(
            RowLogprobs,
            logprobs=st.binary(max_size=4),
            widths=st.binary(max_size=1),
            top_ids=st.binary(max_size=4),
            top_logprobs=st.binary(max_size=4),
        ),
        max_size=1,
    ),
)


@given(COLUMNS)
def test_arbitrary_columns_are_unpacked_or_refused(frame: Deltas) -> None:
    """Arbitrary columns are refused before the first row, or all their values are in the unpacked rows."""
    try:
        rows = columns.unpack(frame)
    except WireError:
        return
    deltas = [delta for _, delta in rows]
    assert all(token >= 0 for delta in deltas for token in delta.tokens)
    assert sum(delta.logprobs is not None for delta in deltas) == len(frame.logprobs)
    assert sum(delta.cached_tokens for delta in deltas) == sum(frame.cached.values())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_or_are_refused(data: bytes) -> None:
    """Decoding arbitrary bytes returns a message or raises WireError, and no other exception."""
    for frame in (data, bytes((frames.VERSION, 7)) + data):
        try:
            message = frames.decode(frame)
            if isinstance(message, Deltas):
                list(columns.unpack(message))
        except WireError:
            pass


@given(st.lists(rows(), min_size=1, max_size=4), st.data())
def test_truncated_columns_are_refused(step: list[columns.Row], data: st.DataObject) -> None:
    """A column that lacks a byte is refused before the first row."""
    frame = columns.pack(step)
    name = data.draw(st.sampled_from(["calls", "choices", "counts", "ends"]))
    truncated = msgspec.structs.replace(frame, **{name: getattr(frame, name)[:-1]})
    with pytest.raises(WireError):
        columns.unpack(truncated)


TWO = columns.pack([(1, Delta(0, [7, 8], [TokenLogprobs(-1.0, (3,), (-2.0,))] * 2))])
ONE = columns.pack([(1, Delta(0, [7], [TokenLogprobs(-1.0, (3,), (-2.0,))]))])


@pytest.mark.parametrize(
    "changed",
    [
        {"tokens": TWO.tokens + TWO.tokens},
        {"tokens": ONE.tokens},
        {"ends": b"\x03"},
        {"logprobs": ONE.logprobs},
        {"logprobs": {1: TWO.logprobs[0]}},
        {"logprobs": {-1: TWO.logprobs[0]}},
        {"tokens": TWO.tokens[:4] + b"\xff\xff\xff\xff"},
        {"cached": {1: 5}},
        {"cached": {0: -5}},
        {"cached": {0: 2**62}},
        {"logprobs": {0: msgspec.structs.replace(TWO.logprobs[0], widths=b"\x02")}},
        {"logprobs": {0: msgspec.structs.replace(TWO.logprobs[0], widths=b"\x01\x00")}},
        {"logprobs": {0: msgspec.structs.replace(TWO.logprobs[0], top_ids=ONE.logprobs[0].top_ids)}},
        {"logprobs": {0: msgspec.structs.replace(TWO.logprobs[0], top_ids=b"\xff\xff\xff\xff" * 2)}},
    ],
)
def test_inconsistent_columns_are_refused(changed: dict[str, Any]) -> None:
    """Columns with inconsistent lengths or invalid values are refused before the first row."""
    assert len(list(columns.unpack(TWO))) == 1
    with pytest.raises(WireError):
        columns.unpack(msgspec.structs.replace(TWO, **changed))


def test_messages_round_trip() -> None:
    """A Generate request with all its parts decodes to an equal one."""
    start = ChoiceStart(0, pack(token_ids([7])))
    sampling = Sampling(seed=3, logit_bias={5: -1.0}, stop_tokens=(2,), logprobs=2)
    request = Generate(call=9, model="m", prompt=pack(token_ids([1, 2])), sampling=sampling, starts=(start,))
    assert frames.decode(frames.encode(request)) == request


def test_embeddings_scores_and_token_ids_round_trip() -> None:
    """Requests for embeddings, scores and token ids, and their replies, decode to equal ones."""
    tensor, logprobs = pack(token_ids([1, 2])), [TokenLogprobs(-0.5, (1, 2), (-0.25, -2.0))]
    for message in (
        EmbedRequest(call=1, model="m", inputs=(tensor, pack(token_ids([])))),
        EmbedReply(1, pack(np.eye(2, 3, dtype=np.float32))),
        ScoreRequest(call=1, model=None, tokens=tensor, width=2),
        ScoreReply(1, columns.pack_logprobs(logprobs)),
        TokenizeRequest(call=1, sha256="0" * 64, texts=("a", "")),
        TokenizeReply(1, (tensor, pack(token_ids([])))),
    ):
        assert frames.decode(frames.encode(message)) == message


def test_unknown_fields_are_ignored() -> None:
    """A message with a field of a later version decodes without that field."""
    frame = frames.encode(Cancel(4))[:2] + msgspec.msgpack.encode({"call": 4, "reason": "later version"})
    assert frames.decode(frame) == Cancel(4)


def test_unknown_types_and_versions_are_refused() -> None:
    """An unknown type raises UnknownFrame, and an unknown version WireError."""
    with pytest.raises(frames.UnknownFrame):
        frames.decode(bytes((frames.VERSION, 200)) + b"\x80")
    with pytest.raises(WireError, match="version 9"):
        frames.decode(bytes((9, 1)) + b"\x80")


def test_too_large_frames_are_not_encoded() -> None:
    """Encoding a message that exceeds the maximum frame size raises WireError."""
    with pytest.raises(WireError, match="exceeds the maximum"):
        frames.encode(Failed(1, "x", "y" * frames.MAX_FRAME))


@given(st.lists(st.integers(0, 2**31 - 1)))
def test_tensors_round_trip(ids: list[int]) -> None:
    """Token ids are encoded as little-endian int32 and decode to equal ones."""
    tensor = pack(token_ids(ids))
    assert unpack(tensor).tolist() == ids
    assert tensor.data == np.array(ids, "<i4").tobytes()


@pytest.mark.parametrize("before", [0, 5000])
@pytest.mark.parametrize("wrong", [-1, 2**31, -(2**40), 2.0])
def test_invalid_token_ids_are_refused(before: int, wrong: float) -> None:
    """An invalid token id is refused in a short list and in a long one, which are checked by different code."""
    assert token_ids([1] * before + [2**31 - 1]).tolist()[-1] == 2**31 - 1
    with pytest.raises(ValueError, match="token ids"):
        token_ids([1] * before + [wrong])


@pytest.mark.parametrize(
    "tensor", [Tensor("int32", (2,), b"1234"), Tensor("int8", (1,), b"1"), Tensor("int32", (-1, -1), b"1234")]
)
def test_inconsistent_tensors_are_refused(tensor: Tensor) -> None:
    """A tensor whose shape, dtype and size do not match is refused."""
    with pytest.raises(WireError):
        unpack(tensor)


@pytest.mark.parametrize("tokens", [[1.5], [[1, 2], [3, 4]], [-1], [2**31], ["a"]])
def test_lists_of_other_values_are_not_token_ids(tokens: list[object]) -> None:
    """Floats, strings, matrices, and ids that are negative or too large are refused as token ids."""
    with pytest.raises(ValueError, match="token ids"):
        token_ids(tokens)  # type: ignore[arg-type]


def test_token_ids_are_copied() -> None:
    """Writing to the array returned by token_ids does not change the argument."""
    original = np.array([1, 2], np.int32)
    token_ids(original)[0] = 99
    assert original.tolist() == [1, 2]


def test_one_frame_per_run_of_deltas() -> None:
    """Consecutive deltas share a frame, and messages between them keep their position."""
    delta = Delta(0, [1])
    sent = [frames.decode(f) for f in to_frames([(1, delta), (2, delta), frames.encode(InfoRequest(3)), (1, delta)])]
    assert [type(message).__name__ for message in sent] == ["Deltas", "InfoRequest", "Deltas"]
    assert isinstance(sent[0], Deltas)
    assert [call for call, _ in columns.unpack(sent[0])] == [1, 2]


def test_errors_are_sent_by_code() -> None:
    """An error code becomes an error of the same class on the other side, an unknown code a NodeError."""
    assert type(from_code("node_busy", "full", retry_after=2)).__name__ == "NodeBusy"
    assert type(from_code("later_version", "?")).__name__ == "NodeError"
    # Not what only this side may raise: it would end an answer that another node can continue.
    for error in (SettingsError, NoNodeAvailable, RepeatedFailure, SessionClosed, AnswerTimeout, SubnetError):
        assert type(from_code(error.code, "?")).__name__ == "NodeError"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 0.5])
@pytest.mark.parametrize("column", ["logprobs", "top_logprobs"])
def test_logprobs_are_numbers(number: float, column: str) -> None:
    """A logprob that is not finite, or of a probability above 1, makes a frame invalid."""
    valid = columns.pack([(1, Delta(0, [5], [TokenLogprobs(-1.0, (5,), (-1.0,))]))])
    assert len(list(columns.unpack(valid))) == 1
    row = msgspec.structs.replace(valid.logprobs[0], **{column: np.array([number], "<f4").tobytes()})
    with pytest.raises(WireError, match="finite"):
        list(columns.unpack(msgspec.structs.replace(valid, logprobs={0: row})))


@pytest.mark.parametrize("seconds", [np.nan, np.inf, 1e308, -1.0, 86_401.0])
def test_retry_after_is_at_most_a_day(seconds: float) -> None:
    """A time until a retry that is not a sensible number makes a frame invalid: it would shut out the node for good."""
    assert frames.decode(frames.encode(Failed(1, "node_busy", "full", 86_400.0)))
    with pytest.raises(WireError, match="retry_after"):
        frames.decode(frames.encode(Failed(1, "node_busy", "full", seconds)))


@pytest.mark.parametrize(
    "change", [{"capacity": -1}, {"capacity": 2**40}, {"running": -5}, {"process": -1}], ids=lambda change: str(change)
)
async def test_counts_of_a_node_are_in_range(change: dict[str, int]) -> None:
    """A node's report with a negative or absurd count is invalid."""
    info = await MockProtocol().rpc_info()
    assert frames.decode(frames.encode(InfoReply(1, info)))
    with pytest.raises(WireError, match=next(iter(change))):
        frames.decode(frames.encode(InfoReply(1, msgspec.structs.replace(info, **change))))
