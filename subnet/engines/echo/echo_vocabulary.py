"""Vocabulary of the echo engine: common words, and single bytes that make up multi-byte characters."""

from __future__ import annotations

_TEXT = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you
were all her she there would their we him been has when who will no more if out so said what up its about into than
them can only other time new some could these two may first then do any like my now over such
"""
_WORDS = _TEXT.split()
_CHARACTERS = [char.encode() for char in ("é", "ß", "中", "語", "€", "🎉", "🦜", "👍🏽", "\n")]

END = 256
_FIRST_WORD = 257
PIECES = [bytes((byte,)) for byte in range(256)] + [b"<|end|>"] + [b" " + word.encode() for word in _WORDS]
MAX_CHARACTER_TOKENS = max(map(len, _CHARACTERS))


class TextState:
    """State of a text: between two characters, or after `prefix`, the first bytes of a character.

    `candidates` are the tokens that may follow, repeated in proportion to their probability, most likely first.
    `next_states` maps a token to the state that it leads to; any other token leads between characters.
    """

    def __init__(self, prefix: bytes = b"") -> None:
        self.prefix = prefix
        self.candidates = [char[len(prefix)] for char in _CHARACTERS if char.startswith(prefix) and char != prefix]
        self.next_states: dict[int, TextState] = {}


def _word_candidates() -> list[int]:
    # Earlier words are more common, as in natural text.
    return [_FIRST_WORD + rank for rank in range(len(_WORDS)) for _ in range(max(4, 48 // (rank + 1)))]


def _build_states() -> TextState:
    prefixes = {char[:size] for char in _CHARACTERS for size in range(len(char))}
    states = {prefix: TextState(prefix) for prefix in prefixes}
    for prefix, state in states.items():
        for byte in range(256):
            text = prefix + bytes((byte,))
            suffix = next(text[at:] for at in range(len(text) + 1) if text[at:] in states)
            if suffix:
                state.next_states[byte] = states[suffix]
    between_characters = states[b""]
    between_characters.candidates = _word_candidates() + between_characters.candidates * 8
    return between_characters


BETWEEN_CHARACTERS = _build_states()
