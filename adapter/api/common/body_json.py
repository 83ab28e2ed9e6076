"""JSON of request bodies, with repairs of what clients write that is not quite JSON."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

_BOM = b"\xef\xbb\xbf"
_HALF = rb"u[dD][89a-fA-F][0-9a-fA-F]{2}"
_PAIR = rb"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# Text up to the next half that is alone, or up to the end: pairs and other escapes are skipped as a whole, so that
# "\\ud83d", a backslash and letters, is not taken for a half. It matches anywhere, which takes linear time, and in
# parts, between which other threads can run.
_UP_TO_HALF = re.compile(
    rb"((?:[^\\]++|\\(?:" + _PAIR + rb"|(?!" + _HALF + rb").)){0,8192}+)(\\" + _HALF + rb")?", re.DOTALL
)
_REPLACEMENT = rb"\ufffd"

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class DecodedBody(NamedTuple):
    """The JSON object of a body, its JSON without what was repaired, and the names of the repairs."""

    value: dict[str, Any]
    text: bytes
    repairs: tuple[str, ...] = ()


def decode_body(body: bytes) -> DecodedBody:
    """Decode the JSON object in `body`.

    A byte order mark is skipped, and escaped halves of surrogate pairs become U+FFFD: clients in JavaScript and Java
    cut texts in the middle of a character. Raises UnicodeDecodeError, RecursionError, and the errors of msgspec.
    """
    body.decode()
    repairs: tuple[str, ...] = ()
    if body.startswith(_BOM):
        body, repairs = body.removeprefix(_BOM), ("byte-order-mark",)
    try:
        return DecodedBody(_decode(body), body, repairs)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        repaired = replace_lone_surrogates(body)
        if repaired == body:
            raise
    return DecodedBody(_decode(repaired), repaired, (*repairs, "unpaired-surrogates"))


def replace_lone_surrogates(text: bytes) -> bytes:
    """Return a JSON text in which escaped halves of surrogate pairs are U+FFFD."""
    return _UP_TO_HALF.sub(lambda found: found[1] + _REPLACEMENT if found[2] else found[0], text)
