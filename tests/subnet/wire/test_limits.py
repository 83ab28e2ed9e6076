"""Limits of what a peer may send in one frame, which are the same at both ends."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet.errors import WireError
from subnet.generation import Delta, Sampling, TokenLogprobs
from subnet.node_info import MAX_PIECES
from subnet.tensors import Tensor, pack, token_ids
from subnet.wire import columns, frames
from subnet.wire.columns import MAX_ENTRIES, MAX_ROW_TOKENS, MAX_ROWS
from subnet.wire.messages import (
    MAX_TOKENIZE_TEXTS,
    Accepted,
    ArtefactReply,
    Auth,
    Cancel,
    ChoiceStart,
    Deltas,
    EmbedReply,
    Failed,
    Generate,
    Message,
    Signed,
    TokenizeReply,
)
from subnet.wire.outbox import MAX_QUEUED, Outbox, to_frames

ONE = Delta(0, [5])


def unpacked(frame: bytes) -> list[columns.Row]:
    message = frames.decode(frame)
    assert isinstance(message, Deltas)
    return list(columns.unpack(message))


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    """Deltas of very different sizes, up to the limit of one."""
    tokens = [7] * draw(st.sampled_from([0, 1, 2, 50, 5_000, MAX_ROW_TOKENS]))
    width = draw(st.sampled_from([0, 1, 20])) if len(tokens) <= 5_000 else 0
    entry = TokenLogprobs(-1.0, (3,) * width, (-1.0,) * width)
    return Delta(0, tokens, [entry] * len(tokens) if width else None)


@settings(max_examples=20)
@given(st.lists(deltas(), min_size=1, max_size=5), st.integers(1, 2))
def test_every_queue_is_sent_in_frames_that_are_accepted(items: list[Delta], repeated: int) -> None:
    """However much waits for a peer, its frames are within the limits, and their rows are those that were queued."""
    rows: list[bytes | columns.Row] = [(call, delta) for call, delta in enumerate(items * repeated)]
    assert [row for frame in to_frames(rows) for row in unpacked(frame)] == rows


def test_many_rows_are_sent_in_several_frames() -> None:
    """A queue of more rows than a frame may have becomes several frames."""
    sent = to_frames([(1, ONE)] * (2 * MAX_ROWS + 1))
    assert [len(unpacked(frame)) for frame in sent] == [MAX_ROWS, MAX_ROWS, 1]


def test_a_delta_that_fits_into_no_frame_is_not_sent() -> None:
    """A delta with more alternatives than a frame may have raises WireError at its sender."""
    entry = TokenLogprobs(-1.0, (3,) * 255, (-1.0,) * 255)
    with pytest.raises(WireError, match="tokens and alternatives"):
        to_frames([(1, Delta(0, [5] * 1000, [entry] * 1000))])


@pytest.mark.parametrize(
    "rows",
    [
        [(1, ONE)] * (MAX_ROWS + 1),
        [(1, Delta(0, [5] * MAX_ROW_TOKENS))] * 3,
        [(1, Delta(0, [5], [TokenLogprobs(-1.0, (3,) * 255, (-1.0,) * 255)]))] * (MAX_ENTRIES // 255),
    ],
    ids=["rows", "tokens", "alternatives"],
)
def test_frames_beyond_the_limits_are_refused(rows: list[columns.Row]) -> None:
    """A frame with more rows, tokens or alternatives than a sender may put into one is refused before its first row."""
    with pytest.raises(WireError, match="more than"):
        columns.unpack(columns.pack(rows))
    assert len(list(columns.unpack(columns.pack(rows[: len(rows) // 2])))) == len(rows) // 2


@pytest.mark.parametrize("width", [0, 1])
def test_the_largest_frame(width: int) -> None:
    """A frame may have exactly as many tokens and alternatives as the limit says."""
    entry = TokenLogprobs(-1.0, (3,) * width, (-1.0,) * width)
    most = MAX_ENTRIES // (1 + width)
    rows = [(1, Delta(0, [5] * count, [entry] * count if width else None)) for count in (most // 4,) * 4]
    assert len(list(columns.unpack(columns.pack(rows)))) == len(rows)
    with pytest.raises(WireError, match="more than"):
        columns.unpack(columns.pack([*rows, (1, ONE)]))


def test_token_ids_that_no_vocabulary_has_are_refused() -> None:
    """An id that no vocabulary may have is refused, as a token and as an alternative: other nodes would get it, too."""
    last, beyond = MAX_PIECES - 1, MAX_PIECES
    for delta in (Delta(0, [last]), Delta(0, [1], [TokenLogprobs(-1.0, (last,), (-1.0,))])):
        assert list(columns.unpack(columns.pack([(1, delta)]))) == [(1, delta)]
    for delta in (Delta(0, [beyond]), Delta(0, [1], [TokenLogprobs(-1.0, (beyond,), (-1.0,))])):
        with pytest.raises(WireError, match="no vocabulary"):
            columns.unpack(columns.pack([(1, delta)]))


def encoded(message: Message, /, **members: Any) -> bytes:
    """Encode a message with other or further members."""
    frame = frames.encode(message)
    return frame[:2] + msgspec.msgpack.encode(msgspec.to_builtins(message, builtin_types=(bytes,)) | members)


LARGE = ArtefactReply(1, bytes(2 << 20))
GENERATE = Generate(
    model="m", prompt=pack(token_ids([1])), sampling=Sampling(), starts=(ChoiceStart(0, pack(token_ids([]))),)
)
SIGNED = Signed(1, Auth(scheme="x", nonce=b"", time=0.0, signature=b""), b"")
TENSOR = ["int32", [0], b""]


@pytest.mark.parametrize(
    ("message", "members"),
    [
        (Cancel(1), {"call": -1}),
        (Cancel(1), {"call": 2**32}),
        (Cancel(1), {"padding": bytes(1 << 20)}),
        (SIGNED, {"auth": {"scheme": "x", "nonce": b"", "time": 0.0, "signature": b"", "more": 1}}),
        (SIGNED, {"auth": {"scheme": "x", "nonce": bytes(65), "time": 0.0, "signature": b""}}),
        (Failed(1, "x", ""), {"message": "x" * 4097}),
        (Failed(1, "x", ""), {"param": "x" * 1025}),
        (LARGE, {"more": []}),
        (EmbedReply(1, pack(token_ids([]))), {"embeddings": ["float32", [1] * 9, bytes(4)]}),
        (EmbedReply(1, pack(token_ids([]))), {"embeddings": ["float32", [1], bytes(4), 1]}),
        (TokenizeReply(1, ()), {"tokens": [TENSOR] * (MAX_TOKENIZE_TEXTS + 1)}),
        (GENERATE, {"model": "m" * 1025}),
        (GENERATE, {"text": "x" * (2 << 20), "sampling": {"more": []}}),
        (GENERATE, {"text": "x" * (2 << 20), "starts": [{"choice": 0, "delivered": TENSOR, "more": []}]}),
        (GENERATE, {"sampling": {"grammar": {"kind": "regex", "text": "a", "more": []}}}),
        (GENERATE, {"sampling": {"logit_bias": dict.fromkeys(range(2**18 + 1), 1.0)}}),
        (GENERATE, {"sampling": {"stop_tokens": [1] * (2**16 + 1)}}),
        (GENERATE, {"starts": [{"choice": 0, "delivered": TENSOR}] * (2**16 + 1)}),
    ],
)
def test_messages_beyond_the_limits_are_refused(message: Message, members: dict[str, Any]) -> None:
    """A message with a member that is too large, or unknown in a large frame, is refused."""
    assert frames.decode(frames.encode(message)) is not None
    with pytest.raises(WireError):
        frames.decode(encoded(message, **members))


def test_unknown_members_of_small_messages_are_ignored() -> None:
    """A small message may have members of a later version, at each level."""
    later = encoded(
        GENERATE, more=1, sampling={"more": 1, "seed": 3}, starts=[{"choice": 0, "delivered": TENSOR, "x": 1}]
    )
    message = frames.decode(later)
    assert isinstance(message, Generate)
    assert (message.sampling, len(message.starts)) == (Sampling(seed=3), 1)


@pytest.mark.parametrize(("message", "size"), [(Cancel(1), (1 << 20) - 1), (GENERATE, 1 << 20)])
def test_the_largest_message_with_unknown_members(message: Message, size: int) -> None:
    """Unknown members count for the limit of a frame, and from 1 MiB on there may be none."""
    padding = size - len(encoded(message, more=bytes(1 << 16))) + (1 << 16)
    frame = encoded(message, more=bytes(padding))
    assert len(frame) == size
    assert frames.decode(frame) == message
    with pytest.raises(WireError):
        frames.decode(encoded(message, more=bytes(padding + 1)))


def test_large_messages_are_equal_to_small_ones() -> None:
    """A message whose frame is large has the same members, and can be encoded again, as its signature needs it."""
    sampling = Sampling(seed=3, stop_tokens=(2,))
    for message in (LARGE, msgspec.structs.replace(GENERATE, text="x" * (2 << 20), sampling=sampling)):
        decoded = frames.decode(frames.encode(message))
        assert isinstance(decoded, type(message))
        assert msgspec.to_builtins(decoded) == msgspec.to_builtins(message)
        assert frames.decode(frames.encode(decoded)) == decoded


def test_the_product_of_dimensions_is_bounded() -> None:
    """The number of dimensions of a tensor is limited: the product of millions of them takes hours."""
    with pytest.raises(WireError, match="length"):
        frames.decode(encoded(EmbedReply(1, Tensor("int32", (0,), b"")), embeddings=["int32", [3] * 5_000_000, b""]))


async def test_an_outbox_is_full_until_its_peer_reads() -> None:
    """An outbox is full while more waits than a peer that reads would leave, and not any more once that is written."""
    outbox, reads, sent = Outbox(), asyncio.Event(), 0

    async def send(frame: bytes) -> None:
        nonlocal sent
        await reads.wait()
        sent += len(frame)

    writing = asyncio.create_task(outbox.run(send))
    posted = 0
    while not outbox.full:
        outbox.post(LARGE)
        posted += 1
    assert posted <= MAX_QUEUED // len(LARGE.data) + 1
    outbox.post(Accepted(1))
    assert outbox.full
    reads.set()
    await outbox.drain()
    writing.cancel()
    assert (outbox.full, sent > MAX_QUEUED) == (False, True)
