"""Decoding of request bodies that are not quite JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.common.body_json import decode_body, replace_lone_surrogates

_HALVES = st.sampled_from(["\ud83d", "\ude00", "\ud800", "\udfff", "\\", "\\u", "\\ud83d", '"', "u", "d83d", "é", "😀"])
_TEXTS = st.lists(_HALVES | st.text(max_size=2)).map("".join)


def without_halves(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(_TEXTS, _TEXTS)
def test_any_text(name: str, text: str) -> None:
    """Escaped halves become U+FFFD, and pairs their character, in names and in values."""
    decoded = decode_body(json.dumps({name: [text]}).encode())
    assert decoded.value == {without_halves(name): [without_halves(text)]}
    assert decoded.value == msgspec.json.decode(decoded.text)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (rb'{"a": "\uD83D\u0041"}', "\ufffdA"),
        (rb'{"a": "\uD83D\uD83D\uDE00"}', "\ufffd😀"),
        (rb'{"a": "\\ud83d\ude00"}', "\\ud83d\ufffd"),
        (rb'{"a": "\\\ud83d"}', "\\\ufffd"),
        (rb'{"a": "\ud83d', None),
        (rb'{"a": "\ud83', None),
        (b'{"a": "\\ud83d\\', None),
    ],
)
def test_where_escapes_begin(body: bytes, value: str | None) -> None:
    """An escaped backslash does not begin a half, and a body that ends within an escape is invalid."""
    if value is not None:
        assert decode_body(body).value == {"a": value}
        return
    with pytest.raises(msgspec.DecodeError):
        decode_body(body)


def test_valid_json_is_not_changed() -> None:
    """JSON without such halves stays as it is, byte for byte, also in parts beyond the length of one."""
    text = rb'{"a": "' + rb"\ud83d\ude00\n\\ud83d" * 20_000 + rb'"}'
    assert replace_lone_surrogates(text) == text
    half = text.removesuffix(b'"}') + rb'\ude00"}'
    assert replace_lone_surrogates(half) == text.removesuffix(b'"}') + rb'\ufffd"}'


def test_byte_order_mark() -> None:
    """A byte order mark is skipped once."""
    body: dict[str, Any] = {"a": "\ufeff"}
    decoded = decode_body(b"\xef\xbb\xbf" + json.dumps(body).encode())
    assert (decoded.value, decoded.repairs) == (body, ("byte-order-mark",))
    with pytest.raises(msgspec.DecodeError):
        decode_body(b"\xef\xbb\xbf\xef\xbb\xbf{}")
