"""What a node says of the GGUF file that it serves: the model card and the tokenizer artefact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from subnet.errors import SettingsError
from subnet.models.gguf import Metadata, read_metadata
from subnet.models.names import name_of
from subnet.models.vocabulary import (
    USER_DEFINED,
    Vocabulary,
    byte_pair_merges,
    byte_pair_pattern,
    sentencepiece_json,
)
from subnet.node_info import ModelCard, TokenizerArtefact, digest

_LONGEST_CONTEXT = 8192


def describe(
    path: Path,
    model_id: str | None = None,
    context_length: int | None = None,
    tokenizer_json: Path | None = None,
) -> tuple[ModelCard, bytes]:
    """The card, and the artefact as bytes, whose digest the card names.

    `context_length` defaults to what the model was trained for, at most 8192. `tokenizer_json`, a file of the
    `tokenizers` package, replaces the tokenizer in the GGUF. Raises SettingsError.
    """
    metadata = read_metadata(path)
    vocabulary = Vocabulary.from_metadata(metadata)
    artefact = _artefact(metadata, vocabulary, tokenizer_json).to_bytes()
    card = ModelCard(
        id=model_id or name_of(path),
        context_length=_context_length(metadata, context_length),
        tokenizer=digest(artefact),
        chat_template=metadata.get("tokenizer.chat_template"),
        bos_token=_special_text(metadata, vocabulary, "bos"),
        eos_token=_special_text(metadata, vocabulary, "eos"),
        stop_tokens=_stop_tokens(metadata, vocabulary),
        created=int(path.stat().st_mtime),
    )
    return card, artefact


def _artefact(metadata: Metadata, vocabulary: Vocabulary, tokenizer_json: Path | None) -> TokenizerArtefact:
    pattern, merges, text = None, None, None
    if tokenizer_json is not None:
        text = _read_tokenizer(tokenizer_json)
    elif vocabulary.kind == "gpt2":
        pattern = byte_pair_pattern(metadata)
        merges = byte_pair_merges(vocabulary, metadata.get("tokenizer.ggml.merges", []))
    else:
        scores = metadata.get("tokenizer.ggml.scores", [])
        text = sentencepiece_json(vocabulary, scores, metadata.get("tokenizer.ggml.add_space_prefix", True))
    return TokenizerArtefact(
        pieces=vocabulary.pieces(),
        control=vocabulary.control(),
        user_defined=sorted({*vocabulary.of_type(USER_DEFINED), *_added(text)}),
        pattern=pattern,
        merges=merges,
        tokenizer_json=text,
        bos_id=_special(metadata, vocabulary, "bos"),
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", vocabulary.kind == "llama")),
    )


def _added(tokenizer_json: str | None) -> Iterator[int]:
    """The ids of what is matched in any text before everything else, by a tokenizer.json."""
    document = {} if tokenizer_json is None else msgspec.json.decode(tokenizer_json, type=dict[str, Any])
    return (token["id"] for token in document.get("added_tokens") or () if not token["special"])


def _read_tokenizer(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing more precise
        raise SettingsError(f"{path} is not a valid tokenizer.json: {error}") from error
    return text


def _context_length(metadata: Metadata, wanted: int | None) -> int:
    trained = int(metadata.get(f"{metadata.get('general.architecture')}.context_length", _LONGEST_CONTEXT))
    if wanted is not None and not 0 < wanted <= trained:
        raise SettingsError(f"invalid context length {wanted}: expected 1 to {trained}, the model's maximum")
    return wanted or min(trained, _LONGEST_CONTEXT)


def _special(metadata: Metadata, vocabulary: Vocabulary, name: str) -> int | None:
    token = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return int(token) if token is not None and 0 <= token < len(vocabulary.texts) else None


def _special_text(metadata: Metadata, vocabulary: Vocabulary, name: str) -> str:
    token = _special(metadata, vocabulary, name)
    return "" if token is None else vocabulary.texts[token]


def _stop_tokens(metadata: Metadata, vocabulary: Vocabulary) -> tuple[int, ...]:
    named = (_special(metadata, vocabulary, name) for name in ("eos", "eot", "eom"))
    return tuple(sorted({*(token for token in named if token is not None), *vocabulary.ends()}))
