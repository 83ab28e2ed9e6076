"""Comparison of an artefact's encoder with the engine's own tokenizer, on fixed texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from subnet.errors import InvalidRequest
from subnet.models.encoders import load_encoder
from subnet.models.patterns import WITHOUT_MARKS
from subnet.node_info import TokenizerArtefact
from subnet.tensors import TokenIds


class EngineTokenizer(Protocol):
    """Tokenizer of the engine of this `version`. Both methods block, and raise InvalidRequest if it fails, or
    SettingsError.
    """

    version: str

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of plain texts, without added tokens."""

    def pieces(self) -> list[bytes]:
        """Return the bytes of each token."""


# Without texts of tokens that end a turn: for llama.cpp they are control tokens, whatever the file says.
_TEXTS = (
    "The quick brown fox didn't jump; it's 3.14159, isn't it? ISN'T IT? we'LL O'Neil l'\u00e9t\u00e9 HTTPServer",
    "  two  leading,   three inner and trailing spaces   \n\n\tTabs\r\n \n  x\t\ty     ",
    "def f(x: int) -> dict[str, int]:\n    return {'a_b': x ** 2, \"c\": [x << 1, ~x]}  # 100%\n\n\n",
    "https://example.org/a?b=c&d=%20#e user@example.org 2026-11-30T18:12:26Z $1,000.00 \u20ac5",
    "1 12 123 1234 12345 123456 1234567  12345 x1234\n 99 \n\n 5\t6 \u00bd\u00b2\u00b3 \u2460",
    "..... !!! ??? --- ___ ``` ~~~ /// \r\n/ /\n -----\n\n\n====\r\n\r\n\\\\ <<>> ||",
    "Stra\u00dfe na\u00efve caf\u00e9 \u00c9COLE \u0130stanbul \u01c6 \ufb01 \uff21\uff22\uff23 \u1e9e",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002\u30ab\u30bf 2024\u5e74",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5 \uc548\ub155\ud558\uc138\uc694 3\uac1c",
    "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u041c\u0418\u0420 \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac",
    "\u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8\u05d9\u05ea \u0661\u0662\u0663\u0664 \u06f5\u06f6\u06f7\u06f8",
    "\U0001f600 \U0001f1e9\U0001f1ea \U0001d4d0 \u2211\u222b\u221e \u2192 \u2713 \u00a9\u00ae \x00\x01\x7f\ufffd",
    "x\u00a0y\u2003z\u3000w\u200bv\u2581u\x0bt\x0cs\x85r",
    '{"name": "f", "arguments": {"x": [1, null, true, "\\u00e9"]}}<think>\n<0x0A></think>[INST]<|im_ end|></ s>',
)
_MARKED_TEXTS = (
    "cafe\u0301 n\u0303o A\u030a \u1e9b\u0323 Z\u0322\u0337a\u0336",
    "\u0e44\u0e17\u0e22\u0e20\u0e32\u0e29\u0e32 \u0e01\u0e34\u0e19\u0e02\u0e49\u0e32\u0e27",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e \u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd 1\ufe0f\u20e3 \u263a\ufe0f",
)


def find_difference(artefact: TokenizerArtefact, engine: EngineTokenizer, pre: str) -> str | None:
    """Return the beginning of the first text that the artefact's encoder and the engine tokenize differently, if any.

    `pre` is the name of the pre-tokenizer. Texts on which the engine is known to be wrong are left out; None as well if
    the engine fails. Raises SettingsError if the artefact is invalid.
    """
    encoder = load_encoder(artefact)
    texts = _TEXTS if pre in WITHOUT_MARKS else _TEXTS + _MARKED_TEXTS
    try:
        expected = engine.tokenize(texts)
    except InvalidRequest:
        return None
    pairs = zip(texts, expected, strict=True)
    return next((ascii(text[:20]) for text, ids in pairs if not np.array_equal(encoder.encode(text), ids)), None)
