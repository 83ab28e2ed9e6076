"""What the echo engine can say: common words, and characters whose bytes are a token each."""

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
LONGEST = max(map(len, _CHARACTERS))


class Place:
    """Where a text stands: between characters, or within some.

    `draws` are the tokens that may come next, likelier ones more often, the likeliest first. `after` tells where a
    token leads to, if not between characters.
    """

    def __init__(self, begun: bytes = b"") -> None:
        self.begun = begun
        self.draws = [char[len(begun)] for char in _CHARACTERS if char.startswith(begun) and char != begun]
        self.after: dict[int, Place] = {}


def _words() -> list[int]:
    """The first words of the list are the most common, as in any text."""
    return [_FIRST_WORD + rank for rank in range(len(_WORDS)) for _ in range(max(4, 48 // (rank + 1)))]


def _places() -> Place:
    begun = {char[:size] for char in _CHARACTERS for size in range(len(char))}
    places = {prefix: Place(prefix) for prefix in begun}
    for prefix, place in places.items():
        for byte in range(256):
            text = prefix + bytes((byte,))
            longest = next(text[at:] for at in range(len(text) + 1) if text[at:] in places)
            if longest:
                place.after[byte] = places[longest]
    between = places[b""]
    between.draws = _words() + between.draws * 8
    return between


BETWEEN = _places()
