"""How the tokenizer of a GGUF file encodes text, as fields of an artefact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subnet.errors import SettingsError
from subnet.models.character_pairs import reachable
from subnet.models.encoder import WHOLE_TEXT
from subnet.models.gguf import Metadata
from subnet.models.patterns import CHARACTER_LEVEL, LINES, PASSES, PATTERNS
from subnet.models.vocabulary import BYTE, NORMAL, Vocabulary, byte_pair_merges, scored_merges, sentencepiece_json

_BYTES = 256
# For vocabularies in which no token has a space after something else.
_SPACED_WORDS = " +[^ ]*|[^ ]+"


def find_encoding(metadata: Metadata, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the fields of the artefact that say how text is encoded.

    Raises SettingsError if the tokenizer is malformed, and UnknownEncoding if it is of an unknown kind.
    """
    if vocabulary.kind == "gpt2":
        merges = byte_pair_merges(vocabulary, metadata.get("tokenizer.ggml.merges", []))
        if vocabulary.pre in CHARACTER_LEVEL:
            return _by_character(vocabulary, merges, _newlines(vocabulary), pattern=LINES)
        if vocabulary.pre in PATTERNS:
            return {"pattern": PATTERNS[vocabulary.pre], "merges": merges}
        if vocabulary.pre in PASSES:
            return {"passes": list(PASSES[vocabulary.pre]), "merges": merges}
        raise UnknownEncoding(f"unknown pre-tokenizer {vocabulary.pre!r}: pass a tokenizer.json with --tokenizer")
    if vocabulary.kind == "llama":
        return _sentencepiece(metadata, vocabulary)
    raise UnknownEncoding(f"unsupported tokenizer type: {vocabulary.kind}: pass a tokenizer.json with --tokenizer")


class UnknownEncoding(SettingsError):
    """Tokenizer that only the engine can run."""

    code = "unknown_encoding"


def _sentencepiece(metadata: Metadata, vocabulary: Vocabulary) -> dict[str, Any]:
    scores = metadata.get("tokenizer.ggml.scores", [])
    space_prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    if len(vocabulary.of_type(BYTE)) < _BYTES:
        return {"tokenizer_json": sentencepiece_json(vocabulary, scores, space_prefix)}
    merges = scored_merges(vocabulary, scores)
    inner = any("▁" in vocabulary.texts[token].lstrip("▁") for token in merges)
    pattern = WHOLE_TEXT if inner else _SPACED_WORDS
    return _by_character(vocabulary, merges, pattern=pattern, space_prefix=space_prefix)


def _newlines(vocabulary: Vocabulary) -> list[int]:
    """Return the tokens that are runs of newlines: in Gemma 4, they are tokens whether or not merges produce them."""
    return [token for token in vocabulary.of_type(NORMAL) if vocabulary.texts[token].strip("\n") == ""]


def _by_character(vocabulary: Vocabulary, merges: list[int], more: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
    """Return the fields for merging characters. `more` are tokens that only a word of its own is."""
    produced = reachable(vocabulary.pieces(), merges)
    merges = list(dict.fromkeys([*produced, *more, *vocabulary.of_type(BYTE)]))
    return {"merges": merges, "by_character": True, **fields}
