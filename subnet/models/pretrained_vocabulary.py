"""Vocabulary of a tokenizer.json: bytes and types of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec
from tokenizers import AddedToken, Tokenizer

from subnet.errors import SettingsError
from subnet.models.end_tokens import end_tokens
from subnet.models.pieces import SPACE, byte_level_to_bytes, restore_spaces, sentencepiece_to_bytes
from subnet.models.pretrained_files import TOKENIZER, Document, read_document
from subnet.panics import panics_as_errors

_TOKEN_NEUTRAL_DECODERS = {"Fuse", "Strip"}
"""Types of decoders that do not change a token in the middle of a text."""


class PretrainedVocabulary(msgspec.Struct, frozen=True):
    """Tokens of a tokenizer.json and how they are matched.

    `pieces[i]` is the bytes that token i decodes to, or the text of a control token. `user_defined` excludes tokens of
    the base vocabulary that are not matched as their own text (in Gemma "▁▁" stands for two spaces): tokenizer.json
    itself defines how those are matched. `prefix_tokens` are added before every text.
    """

    pieces: list[bytes]
    control: list[int]
    user_defined: list[int]
    ids: dict[str, int]
    json: str
    prefix_tokens: list[int]

    @classmethod
    def read(cls, folder: Path, special: Collection[str], end_ids: Collection[int]) -> PretrainedVocabulary:
        """Read the tokenizer.json in `folder`. Raises SettingsError.

        Control tokens are those marked as special, those whose text is in `special`, and added tokens in `end_ids`.
        """
        document = read_document(folder, TOKENIZER)
        if not document:
            raise SettingsError(f"{folder} has no {TOKENIZER}")
        # Re-encoded, because files on the hub are indented, which doubles their size.
        text = msgspec.json.encode(document).decode()
        try:
            with panics_as_errors:
                tokenizer = Tokenizer.from_str(text)
                decode = token_decoder(document.get("decoder"))
        except Exception as error:  # the package raises nothing more specific
            raise SettingsError(f"{folder / TOKENIZER} cannot be used: {error}") from error
        ids, added = tokenizer.get_vocab(), tokenizer.get_added_tokens_decoder()
        control = {ids[content] for content in special if content in ids}
        control |= {token for token, entry in added.items() if entry.special or token in end_ids}
        pieces, size = _pieces(ids, control, decode), tokenizer.get_vocab_size(with_added_tokens=False)
        return cls(
            pieces=pieces,
            control=sorted(control),
            user_defined=sorted(t for t in added.keys() - control if t >= size or _is_plain(added[t], pieces[t])),
            ids=ids,
            json=text,
            prefix_tokens=tokenizer.encode("").ids,
        )

    def end_tokens(self, eos: str) -> set[int]:
        """Return the token of the text `eos`, and control tokens whose text marks the end of a turn."""
        control = frozenset(self.control)
        ends = end_tokens({text: token for text, token in self.ids.items() if token in control})
        return {*ends, *([self.ids[eos]] if eos in self.ids else [])}


def _pieces(ids: dict[str, int], control: Collection[int], decode: Callable[[str], bytes]) -> list[bytes]:
    pieces = [b""] * (max(ids.values(), default=-1) + 1)
    for text, token in ids.items():
        pieces[token] = text.encode() if token in control else decode(text)
    return pieces


def _is_plain(token: AddedToken, piece: bytes) -> bool:
    """Return whether the token is matched wherever its text appears, and decodes to that text."""
    return piece == token.content.encode() and not (token.single_word or token.lstrip or token.rstrip)


def token_decoder(decoder: Document | None) -> Callable[[str], bytes]:
    """Return the function that decodes the text of one token, for the decoder of a tokenizer.json.

    Raises ValueError for a decoder that cannot be applied token by token.
    """
    decoders = list(_flatten(decoder))
    types = {decoder["type"] for decoder in decoders}
    if "ByteLevel" in types and types <= {"ByteLevel", *_TOKEN_NEUTRAL_DECODERS}:
        return byte_level_to_bytes
    spaces = [decoder for decoder in decoders if decoder["type"] in ("Metaspace", "Replace")]
    supported = {"Metaspace", "Replace", "ByteFallback", *_TOKEN_NEUTRAL_DECODERS}
    if spaces and all(map(_restores_spaces, spaces)) and types <= supported:
        return sentencepiece_to_bytes if "ByteFallback" in types else restore_spaces
    raise ValueError(f"unsupported decoder: {', '.join(sorted(types)) or 'none'}")


def _flatten(decoder: Document | None) -> Iterator[Document]:
    if decoder is None:
        return
    if decoder["type"] != "Sequence":
        yield decoder
        return
    for inner in decoder["decoders"]:
        yield from _flatten(inner)


def _restores_spaces(decoder: Document) -> bool:
    if decoder["type"] == "Metaspace":
        return bool(decoder["replacement"] == SPACE)
    return (decoder["pattern"], decoder["content"]) == ({"String": SPACE}, " ")
