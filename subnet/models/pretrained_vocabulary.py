"""From a tokenizer.json to the bytes and the kinds of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec
from tokenizers import AddedToken, Tokenizer

from subnet.errors import SettingsError
from subnet.models.pieces import SPACE, bytes_of_alphabet, bytes_of_sentencepiece, spaced
from subnet.models.pretrained_files import TOKENIZER, Document, read_document

_JOINS = {"Fuse", "Strip"}
"""Decoders that do nothing to a token within a text."""


class PretrainedVocabulary(msgspec.Struct, frozen=True):
    """`pieces[i]` are the bytes of token i as the decoder of the file has them, or the text of a control token.

    `user_defined` leaves out tokens of the model itself that are not simply matched as their own text (in Gemma "▁▁"
    stands for two spaces), since the file says how to match these.
    """

    pieces: list[bytes]
    control: list[int]
    user_defined: list[int]
    ids: dict[str, int]
    json: str
    starts: list[int]
    """The tokens that are put before a text."""

    @classmethod
    def read(cls, folder: Path, special: Collection[str], ends: Collection[int]) -> PretrainedVocabulary:
        """Control tokens are those that the file says are special, those with a text in `special`, and added ones in
        `ends`. Raises SettingsError."""
        document = read_document(folder, TOKENIZER)
        if not document:
            raise SettingsError(f"{folder} has no {TOKENIZER}")
        # Written anew: files on the hub are indented, to twice their size.
        text = msgspec.json.encode(document).decode()
        try:
            tokenizer = Tokenizer.from_str(text)
            decode = decoding(document.get("decoder"))
        except Exception as error:  # the package raises nothing more precise
            raise SettingsError(f"{folder / TOKENIZER} cannot be used: {error}") from error
        ids, added = tokenizer.get_vocab(), tokenizer.get_added_tokens_decoder()
        control = {ids[each] for each in special if each in ids}
        control |= {token for token, each in added.items() if each.special or token in ends}
        pieces, size = _pieces(ids, control, decode), tokenizer.get_vocab_size(with_added_tokens=False)
        return cls(
            pieces=pieces,
            control=sorted(control),
            user_defined=sorted(t for t in added.keys() - control if t >= size or _is_plain(added[t], pieces[t])),
            ids=ids,
            json=text,
            starts=tokenizer.encode("").ids,
        )


def _pieces(ids: dict[str, int], control: Collection[int], decode: Callable[[str], bytes]) -> list[bytes]:
    pieces = [b""] * (max(ids.values(), default=-1) + 1)
    for text, token in ids.items():
        pieces[token] = text.encode() if token in control else decode(text)
    return pieces


def _is_plain(token: AddedToken, piece: bytes) -> bool:
    """Whether the token is matched wherever its text is, and stands for it."""
    return piece == token.content.encode() and not (token.single_word or token.lstrip or token.rstrip)


def decoding(decoder: Document | None) -> Callable[[str], bytes]:
    """From the text of one token to its bytes, as a tokenizer.json's decoder has it. Raises ValueError for a decoder
    that cannot be had token by token."""
    parts = list(_flat(decoder))
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds and kinds <= {"ByteLevel", *_JOINS}:
        return bytes_of_alphabet
    spaces = [part for part in parts if part["type"] in ("Metaspace", "Replace")]
    if spaces and all(map(_is_space, spaces)) and kinds <= {"Metaspace", "Replace", "ByteFallback", *_JOINS}:
        return bytes_of_sentencepiece if "ByteFallback" in kinds else spaced
    raise ValueError(f"unsupported decoder: {', '.join(sorted(kinds)) or 'none'}")


def _flat(decoder: Document | None) -> Iterator[Document]:
    if decoder is None:
        return
    if decoder["type"] != "Sequence":
        yield decoder
        return
    for part in decoder["decoders"]:
        yield from _flat(part)


def _is_space(part: Document) -> bool:
    if part["type"] == "Metaspace":
        return bool(part["replacement"] == SPACE)
    return (part["pattern"], part["content"]) == ({"String": SPACE}, " ")
