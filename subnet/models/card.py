"""Model card and tokenizer artefact of a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from subnet.errors import SettingsError
from subnet.models.encoding import find_encoding
from subnet.models.gguf import Metadata, read_header
from subnet.models.names import model_id_from_path
from subnet.models.vocabulary import USER_DEFINED, Vocabulary
from subnet.models.weights import fingerprint_gguf
from subnet.node_info import ModelCard, TokenizerArtefact, digest

_MAX_DEFAULT_CONTEXT = 8192


def describe(
    path: Path,
    model_id: str | None = None,
    context_length: int | None = None,
    tokenizer_json: Path | None = None,
) -> tuple[ModelCard, bytes]:
    """Return the model card and the encoded tokenizer artefact of the GGUF file at `path`.

    The card refers to the artefact by its SHA-256. `context_length` defaults to the trained length, capped at 8192.
    `tokenizer_json` replaces the tokenizer in the GGUF file; it is in the format of the `tokenizers` package. Raises
    SettingsError for an invalid file or context length, and for an unsupported tokenizer.
    """
    header = read_header(path)
    metadata = header.metadata
    vocabulary = Vocabulary.from_metadata(metadata)
    artefact = _artefact(metadata, vocabulary, tokenizer_json).to_bytes()
    card = ModelCard(
        id=model_id or model_id_from_path(path),
        context_length=_context_length(metadata, context_length),
        tokenizer=digest(artefact),
        chat_template=metadata.get("tokenizer.chat_template"),
        bos_token=_special_text(metadata, vocabulary, "bos"),
        eos_token=_special_text(metadata, vocabulary, "eos"),
        stop_tokens=_find_stop_tokens(metadata, vocabulary),
        created=int(path.stat().st_mtime),
        weights=fingerprint_gguf(path, header),
    )
    return card, artefact


def _artefact(metadata: Metadata, vocabulary: Vocabulary, tokenizer_json: Path | None) -> TokenizerArtefact:
    encoding = find_encoding(metadata, vocabulary) if tokenizer_json is None else _read_tokenizer(tokenizer_json)
    return TokenizerArtefact(
        pieces=vocabulary.pieces(),
        control=vocabulary.control_tokens(),
        user_defined=sorted({*vocabulary.of_type(USER_DEFINED), *_added_token_ids(encoding.get("tokenizer_json"))}),
        bos_id=_special_token(metadata, vocabulary, "bos"),
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", vocabulary.kind == "llama")),
        **encoding,
    )


def _added_token_ids(tokenizer_json: str | None) -> Iterator[int]:
    """Yield the ids of the added tokens of a tokenizer.json that are not special."""
    document = {} if tokenizer_json is None else msgspec.json.decode(tokenizer_json, type=dict[str, Any])
    return (token["id"] for token in document.get("added_tokens") or () if not token["special"])


def _read_tokenizer(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing more precise
        raise SettingsError(f"{path} is not a valid tokenizer.json: {error}") from error
    return {"tokenizer_json": text}


def _context_length(metadata: Metadata, requested: int | None) -> int:
    trained = int(metadata.get(f"{metadata.get('general.architecture')}.context_length", _MAX_DEFAULT_CONTEXT))
    if requested is not None and not 0 < requested <= trained:
        raise SettingsError(f"invalid context length {requested}: expected 1 to {trained}, the model's maximum")
    return requested or min(trained, _MAX_DEFAULT_CONTEXT)


def _special_token(metadata: Metadata, vocabulary: Vocabulary, name: str) -> int | None:
    token = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return int(token) if token is not None and 0 <= token < len(vocabulary.texts) else None


def _special_text(metadata: Metadata, vocabulary: Vocabulary, name: str) -> str:
    token = _special_token(metadata, vocabulary, name)
    return "" if token is None else vocabulary.texts[token]


def _find_stop_tokens(metadata: Metadata, vocabulary: Vocabulary) -> tuple[int, ...]:
    declared = (_special_token(metadata, vocabulary, name) for name in ("eos", "eot", "eom"))
    return tuple(sorted({*(token for token in declared if token is not None), *vocabulary.end_tokens()}))
