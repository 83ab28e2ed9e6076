"""JSON as clients read it."""

from __future__ import annotations

import pytest

from subnet.http.lenient_json import decode, decode_by_items


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "1",
        ' {"a" : [ 1 , [2], {"b": [3]} ] , "c":{"d":[]}, "e":[]}\n',
        '{"a": [1], "a": [2, 3]}',
        '{"a": [NaN, 1, -Infinity], "b": NaN}',
        '{"a": ["\\ud800", "x\\n"], "b\\udc00": "\\ud83d\\ude00"}',
        '{"a": [1e999, 10000000000000000000000000], "é": "é"}',
        '[{"a": [1]}]',
    ],
)
def test_by_items(text: str) -> None:
    """Decoding a list item by item gives the same value."""
    assert repr(decode_by_items(text.encode())) == repr(decode(text))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"a": [1, 2}',
        b'{"a": [1 2]}',
        b'{"a": [01]}',
        b'{"a": ["\xff"]}',
        b'{"a": ["\n"]}',
        b'{"a": [tru]}',
        b'{"a": [1]} x',
        b'{"a": %s}' % (b"[" * 100_000),
    ],
)
def test_invalid_by_items(text: bytes) -> None:
    """What is not JSON is an error, wherever the fault is."""
    with pytest.raises(ValueError, match=r"JSON|column|codec|nested"):
        decode_by_items(text)
