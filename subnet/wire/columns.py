"""Conversion between deltas of many streams and the columns of one frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from subnet.errors import WireError
from subnet.generation import Delta, FinishReason, TokenLogprobs
from subnet.node_info import MAX_PIECES
from subnet.wire.messages import Deltas, RowLogprobs

_FINISH_REASONS: tuple[FinishReason | None, ...] = (None, "stop", "length")
_FINISH_REASON_CODES = {reason: code for code, reason in enumerate(_FINISH_REASONS)}
# Limits of one frame, which sender and receiver share: a receiver's other work waits while it unpacks one.
MAX_ROWS = 4096
MAX_ENTRIES = 1 << 17
"""Maximum number of tokens and of their alternatives in a frame, together."""
MAX_ROW_TOKENS = 65_535
_MAX_CACHED_TOKENS = 2**31
_MIN_FINITE = np.finfo(np.float32).min
MAX_LOGPROB = 0.01
"""Maximum logprob that a receiver accepts: rounding may make that of a certain token slightly positive."""
_COUNT_OF_ONE = struct.pack("<H", 1)

Row = tuple[int, Delta]


def pack(rows: Sequence[Row]) -> Deltas:
    """Pack `rows`, pairs of call number and delta, into one frame. `pack_frames` keeps within a receiver's limits."""
    size = len(rows)
    calls, deltas = zip(*rows, strict=True) if rows else ((), ())
    tokens = [token for delta in deltas for token in delta.tokens]
    return Deltas(
        calls=struct.pack(f"<{size}I", *calls),
        choices=struct.pack(f"<{size}H", *[delta.choice for delta in deltas]),
        counts=struct.pack(f"<{size}H", *[len(delta.tokens) for delta in deltas]),
        tokens=struct.pack(f"<{len(tokens)}i", *tokens),
        ends=bytes([_FINISH_REASON_CODES[delta.finish_reason] for delta in deltas]),
        cached={row: delta.cached_tokens for row, delta in enumerate(deltas) if delta.cached_tokens},
        logprobs={row: pack_logprobs(d.logprobs) for row, d in enumerate(deltas) if d.logprobs is not None},
    )


def pack_frames(rows: Sequence[Row]) -> Iterator[Deltas]:
    """Pack at most MAX_ROWS rows into as many frames as a receiver's limits demand, nearly always one.

    Raises WireError for a delta that exceeds them alone.
    """
    frame = pack(rows)
    if _entries(frame) <= MAX_ENTRIES:
        yield frame
        return
    if len(rows) == 1:
        raise WireError(f"a delta has more than {MAX_ENTRIES} tokens and alternatives")
    middle = len(rows) // 2
    yield from pack_frames(rows[:middle])
    yield from pack_frames(rows[middle:])


def call_numbers(frame: Deltas) -> list[int]:
    """Return the call number of each row of `frame`. Raises WireError."""
    return _column(frame.calls, "<u4")


def unpack(frame: Deltas) -> Iterator[Row]:
    """Return the rows of `frame`, in order.

    Raises WireError for an inconsistent frame and one that exceeds a limit, before the first row.
    """
    # Most frames have no logprobs: their tokens need not be counted in a call.
    tokens_only = not frame.logprobs and len(frame.tokens) <= 4 * MAX_ENTRIES
    if len(frame.calls) > 4 * MAX_ROWS or not (tokens_only or _entries(frame) <= MAX_ENTRIES):
        raise WireError(f"invalid frame: more than {MAX_ROWS} rows, or {MAX_ENTRIES} tokens and alternatives")
    calls, choices, counts = call_numbers(frame), _column(frame.choices, "<u2"), _column(frame.counts, "<u2")
    tokens = _column(frame.tokens, "<u4")
    rows = len(calls)
    if len(choices) != rows or len(counts) != rows or len(frame.ends) != rows or sum(counts) != len(tokens):
        raise WireError("invalid frame: columns of different lengths")
    if max(frame.ends, default=0) >= len(_FINISH_REASONS):
        raise WireError("invalid frame: unknown finish reason")
    logprobs = {row: unpack_logprobs(packed) for row, packed in frame.logprobs.items()}
    if any(not 0 <= row < rows or len(logprobs[row]) != counts[row] for row in logprobs):
        raise WireError("invalid frame: logprobs do not match the tokens")
    if any(not 0 <= row < rows or not 0 <= cached <= _MAX_CACHED_TOKENS for row, cached in frame.cached.items()):
        raise WireError("invalid frame: invalid number of cached tokens")
    if max(tokens, default=0) >= MAX_PIECES:
        raise WireError("invalid frame: a token id that no vocabulary has")
    return _rows(calls, choices, counts, tokens, frame, logprobs)


def _rows(
    calls: list[int],
    choices: list[int],
    counts: list[int],
    tokens: list[int],
    frame: Deltas,
    logprobs: dict[int, list[TokenLogprobs]],
) -> Iterator[Row]:
    cached = frame.cached
    if frame.counts == _COUNT_OF_ONE * len(calls) and not (cached or logprobs):
        # The common case of an engine step: one token per stream.
        for call, choice, token, end in zip(calls, choices, tokens, frame.ends, strict=True):
            yield call, Delta(choice, [token], None, _FINISH_REASONS[end])
        return
    start = 0
    for row, (call, choice, count, end) in enumerate(zip(calls, choices, counts, frame.ends, strict=True)):
        row_tokens = tokens[start : start + count]
        start += count
        yield call, Delta(choice, row_tokens, logprobs.get(row), _FINISH_REASONS[end], cached.get(row, 0))


def _entries(frame: Deltas) -> int:
    """Return the number of tokens and alternatives in a frame."""
    entries = len(frame.tokens) // 4
    if frame.logprobs:
        entries += sum(len(packed.top_ids) // 4 for packed in frame.logprobs.values())
    return entries


def _column(data: bytes, dtype: str) -> list[int]:
    try:
        return np.frombuffer(data, dtype).tolist()  # type: ignore[no-any-return]
    except ValueError as error:
        raise WireError("invalid frame: truncated column") from error


def _logprobs(data: bytes) -> list[float]:
    try:
        column = np.frombuffer(data, "<f4")
    except ValueError as error:
        raise WireError("invalid frame: truncated column") from error
    # Not NaN either, which compares as False.
    if not ((column >= _MIN_FINITE) & (column <= MAX_LOGPROB)).all():
        raise WireError("invalid frame: a logprob is not a finite number up to 0")
    return column.tolist()  # type: ignore[no-any-return]


def pack_logprobs(entries: Sequence[TokenLogprobs]) -> RowLogprobs:
    """Pack the logprobs of consecutive tokens, with at most 255 alternatives each."""
    return RowLogprobs(
        logprobs=np.array([entry.logprob for entry in entries], "<f4").tobytes(),
        widths=bytes([len(entry.top_ids) for entry in entries]),
        top_ids=np.array([token for entry in entries for token in entry.top_ids], "<i4").tobytes(),
        top_logprobs=np.array([logprob for entry in entries for logprob in entry.top_logprobs], "<f4").tobytes(),
    )


def unpack_logprobs(packed: RowLogprobs) -> list[TokenLogprobs]:
    """Return one entry for each token. Raises WireError for inconsistent columns and invalid values."""
    logprobs, top_ids = _logprobs(packed.logprobs), _column(packed.top_ids, "<u4")
    top_logprobs = _logprobs(packed.top_logprobs)
    if len(packed.widths) != len(logprobs) or not len(top_ids) == len(top_logprobs) == sum(packed.widths):
        raise WireError("invalid frame: logprob columns of different lengths")
    if max(top_ids, default=0) >= MAX_PIECES:
        raise WireError("invalid frame: a token id that no vocabulary has")
    entries, start = [], 0
    for logprob, width in zip(logprobs, packed.widths, strict=True):
        end = start + width
        entries.append(TokenLogprobs(logprob, tuple(top_ids[start:end]), tuple(top_logprobs[start:end])))
        start = end
    return entries
