"""How the tokenizer of a GGUF file encodes text, as fields of an artefact."""

from __future__ import annotations

from typing import Any

from subnet.errors import SettingsError
from subnet.models.character_pairs import reachable
from subnet.models.encoder import WHOLE_TEXT
from subnet.models.gguf import Metadata
from subnet.models.patterns import CHARACTER_LEVEL, LINES, PASSES, PATTERNS
from subnet.models.vocabulary import BYTE, Vocabulary, byte_pair_merges, scored_merges, sentencepiece_json

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
            return _by_character(vocabulary, merges, pattern=LINES)
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


def _by_character(vocabulary: Vocabulary, merges: list[int], **fields: Any) -> dict[str, Any]:
    pieces = vocabulary.pieces()
    produced = reachable(pieces, merges)
    # In Gemma 4 a run of newlines is a token without merges.
    newlines = [token for token in merges if not vocabulary.texts[token].strip("\n")]
    merges = list(dict.fromkeys([*produced, *newlines, *vocabulary.of_type(BYTE)]))
    return {"merges": merges, "by_character": True, **fields}
