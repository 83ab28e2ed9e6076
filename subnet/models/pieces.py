"""How vocabularies write the bytes of a token as text."""

from __future__ import annotations

import re

SPACE = "▁"
"""SentencePiece's stand-in for a space."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: printable Latin-1 is itself, the rest follows from U+0100 on."""
    itself = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(256 + index): byte for index, byte in enumerate(others)}


ALPHABET = _byte_alphabet()
"""The bytes that byte-level BPE's characters stand for."""


def bytes_of_alphabet(text: str) -> bytes:
    """A text with a character that stands for no byte is taken as it is."""
    try:
        return bytes([ALPHABET[char] for char in text])
    except KeyError:
        return text.encode()


def bytes_of_sentencepiece(text: str) -> bytes:
    """`<0x0A>` is one byte, all else is text."""
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else spaced(text)


def spaced(text: str) -> bytes:
    """As bytes, with spaces for their stand-ins."""
    return text.replace(SPACE, " ").encode()
