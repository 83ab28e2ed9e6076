"""Deltas of many streams <-> the columns of one frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from subnet.errors import WireError
from subnet.generation import Delta, FinishReason, TokenLogprobs
from subnet.wire.messages import Deltas, RowLogprobs

_ENDS: tuple[FinishReason | None, ...] = (None, "stop", "length")
_END_NUMBERS = {reason: number for number, reason in enumerate(_ENDS)}
MAX_ROW = 65_535
_LARGEST = 2**31
_ONE = struct.pack("<H", 1)

Row = tuple[int, Delta]


def pack(rows: Sequence[Row]) -> Deltas:
    """One frame for `rows`, pairs of call and delta; no delta holds more than MAX_ROW tokens."""
    size = len(rows)
    calls, deltas = zip(*rows, strict=True) if rows else ((), ())
    tokens = [token for delta in deltas for token in delta.tokens]
    return Deltas(
        calls=struct.pack(f"<{size}I", *calls),
        choices=struct.pack(f"<{size}H", *[delta.choice for delta in deltas]),
        counts=struct.pack(f"<{size}H", *[len(delta.tokens) for delta in deltas]),
        tokens=struct.pack(f"<{len(tokens)}i", *tokens),
        ends=bytes([_END_NUMBERS[delta.finish_reason] for delta in deltas]),
        cached={row: delta.cached_tokens for row, delta in enumerate(deltas) if delta.cached_tokens},
        logprobs={row: _pack_logprobs(d.logprobs) for row, d in enumerate(deltas) if d.logprobs is not None},
    )


def calls(frame: Deltas) -> list[int]:
    """Those that `frame` speaks of, row by row. Raises WireError."""
    return _column(frame.calls, "<u4")


def unpack(frame: Deltas) -> Iterator[Row]:
    """The rows of `frame`, in order. Raises WireError, before the first row, where columns disagree."""
    numbers, choices, counts = calls(frame), _column(frame.choices, "<u2"), _column(frame.counts, "<u2")
    tokens = _column(frame.tokens, "<i4")
    rows = len(numbers)
    if len(choices) != rows or len(counts) != rows or len(frame.ends) != rows or sum(counts) != len(tokens):
        raise WireError("invalid frame: columns of different lengths")
    if max(frame.ends, default=0) >= len(_ENDS):
        raise WireError("invalid frame: unknown finish reason")
    logprobs = {row: _unpack_logprobs(packed) for row, packed in frame.logprobs.items()}
    if any(not 0 <= row < rows or len(logprobs[row]) != counts[row] for row in logprobs):
        raise WireError("invalid frame: logprobs do not match the tokens")
    if any(not 0 <= row < rows or not 0 <= cached <= _LARGEST for row, cached in frame.cached.items()):
        raise WireError("invalid frame: invalid number of cached tokens")
    if min(tokens, default=0) < 0:
        raise WireError("invalid frame: negative token id")
    return _rows(numbers, choices, counts, tokens, frame, logprobs)


def _rows(
    calls: list[int],
    choices: list[int],
    counts: list[int],
    tokens: list[int],
    frame: Deltas,
    logprobs: dict[int, list[TokenLogprobs]],
) -> Iterator[Row]:
    cached = frame.cached
    if frame.counts == _ONE * len(calls) and not (cached or logprobs):
        # What a step of an engine is nearly always: a token for each.
        for call, choice, token, end in zip(calls, choices, tokens, frame.ends, strict=True):
            yield call, Delta(choice, [token], None, _ENDS[end])
        return
    at = 0
    for row, (call, choice, count, end) in enumerate(zip(calls, choices, counts, frame.ends, strict=True)):
        mine = tokens[at : at + count]
        at += count
        yield call, Delta(choice, mine, logprobs.get(row), _ENDS[end], cached.get(row, 0))


def _column(data: bytes, dtype: str) -> list[int]:
    try:
        return np.frombuffer(data, dtype).tolist()  # type: ignore[no-any-return]
    except ValueError as error:
        raise WireError("invalid frame: truncated column") from error


def _floats(data: bytes) -> list[float]:
    try:
        return np.frombuffer(data, "<f4").tolist()  # type: ignore[no-any-return]
    except ValueError as error:
        raise WireError("invalid frame: truncated column") from error


def _pack_logprobs(entries: Sequence[TokenLogprobs]) -> RowLogprobs:
    return RowLogprobs(
        logprobs=np.array([entry.logprob for entry in entries], "<f4").tobytes(),
        widths=bytes([len(entry.top_ids) for entry in entries]),
        top_ids=np.array([i for entry in entries for i in entry.top_ids], "<i4").tobytes(),
        top_logprobs=np.array([p for entry in entries for p in entry.top_logprobs], "<f4").tobytes(),
    )


def _unpack_logprobs(packed: RowLogprobs) -> list[TokenLogprobs]:
    logprobs, ids, tops = _floats(packed.logprobs), _column(packed.top_ids, "<i4"), _floats(packed.top_logprobs)
    if len(packed.widths) != len(logprobs) or not len(ids) == len(tops) == sum(packed.widths):
        raise WireError("invalid frame: logprob columns of different lengths")
    if min(ids, default=0) < 0:
        raise WireError("invalid frame: negative token id")
    entries, at = [], 0
    for logprob, width in zip(logprobs, packed.widths, strict=True):
        entries.append(TokenLogprobs(logprob, tuple(ids[at : at + width]), tuple(tops[at : at + width])))
        at += width
    return entries
