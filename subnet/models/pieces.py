"""Conversion of token texts in a vocabulary to the bytes that they encode."""

from __future__ import annotations

import re

SPACE = "▁"
"""Character that represents a space in SentencePiece vocabularies."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's mapping of printable characters to bytes.

    Printable Latin-1 characters map to themselves; all other bytes follow in order from U+0100.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTE_LEVEL_ALPHABET = _byte_alphabet()
"""Mapping of characters in byte-level BPE vocabularies to the bytes that they represent."""


def byte_level_to_bytes(text: str) -> bytes:
    """Decode the text of a byte-level BPE token. Text outside the byte-level alphabet is encoded as UTF-8."""
    try:
        return bytes([BYTE_LEVEL_ALPHABET[char] for char in text])
    except KeyError:
        return text.encode()


def sentencepiece_to_bytes(text: str) -> bytes:
    """Decode the text of a SentencePiece token: `<0x0A>` is a single byte, anything else is text."""
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else restore_spaces(text)


def restore_spaces(text: str) -> bytes:
    """Encode the text as UTF-8, with SentencePiece's space character replaced by a space."""
    return text.replace(SPACE, " ").encode()
