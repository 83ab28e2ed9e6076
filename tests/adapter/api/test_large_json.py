"""JSON in blocks is the same as msgspec's, whatever the response."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Struct, UnsetType

from adapter.api.common.large_json import encode_in_blocks, long_list, token_list
from adapter.decode.token_logprobs import TokenLogprob, TopLogprob


class Node(Struct, kw_only=True):
    value: Any
    other: Any = None
    absent: int | UnsetType = UNSET


SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=9)
LONG = st.builds(lambda item, count: [item] * count, SCALARS, st.integers(0, 200))
VALUES = st.recursive(
    SCALARS | LONG,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.builds(lambda value, other: Node(value=value, other=other), inner, inner)
        | st.builds(lambda item, count: [item] * count, inner, st.integers(60, 70))
    ),
    max_leaves=12,
)


@given(VALUES)
def test_the_same_as_msgspec(value: Any) -> None:
    """Scalars, lists, dicts and Structs, nested and long, are encoded as msgspec does."""
    assert b"".join(encode_in_blocks(value)) == msgspec.json.encode(value)


def test_long_lists_are_not_made_as_a_whole() -> None:
    """A long list of tokens, of texts or of objects is requested in parts, and encoded like a list."""
    requested: list[int] = []

    def items(start: int, stop: int) -> list[str]:
        requested.append(stop - start)
        return [str(number) for number in range(start, min(stop, 10_000))]

    texts = long_list(10_000, items)
    objects = long_list(200, lambda start, stop: [Node(value=[1.5] * 100)] * (min(stop, 200) - start))
    ids = np.arange(100_000, dtype=np.int32)
    value = Node(value={"ids": token_list(ids), "texts": texts}, other=Node(value=objects))
    expected = Node(
        value={"ids": list(range(100_000)), "texts": [str(number) for number in range(10_000)]},
        other=Node(value=[Node(value=[1.5] * 100)] * 200),
    )
    blocks = encode_in_blocks(value)
    assert b"".join(blocks) == msgspec.json.encode(expected)
    assert max(requested) < 5000
    assert max(map(len, blocks)) < 2 * 256 * 1024


def test_logprobs_are_encoded_in_parts() -> None:
    """A long list of objects has many parts, so that no call of msgspec takes long, and a long text many blocks."""
    top = TopLogprob(token="x", logprob=-1.0, bytes=[120])
    logprobs = [TokenLogprob(token="x", logprob=float("nan"), bytes=[120], top_logprobs=[top] * 20)] * 5000
    value = {"choices": [{"logprobs": logprobs, "text": "ä" * 10**6}]}
    blocks = encode_in_blocks(value)
    assert b"".join(blocks) == msgspec.json.encode(value)
    assert len(blocks) >= sum(map(len, blocks)) // (2 * 256 * 1024)
