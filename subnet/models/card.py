"""Model card and tokenizer artefact of a GGUF file."""

from __future__ import annotations

from pathlib import Path

from subnet.artefact_cache import ArtefactCache
from subnet.errors import SettingsError
from subnet.models.artefact import make_artefact, special_token
from subnet.models.check import EngineTokenizer
from subnet.models.gguf import Metadata, read_header
from subnet.models.names import model_id_from_path
from subnet.models.vocabulary import ENCODERS, Vocabulary
from subnet.models.weights import fingerprint_gguf
from subnet.node_info import ModelCard, digest

_MAX_DEFAULT_CONTEXT = 8192


def describe(
    path: Path,
    model_id: str | None = None,
    context_length: int | None = None,
    tokenizer_json: Path | None = None,
    engine: EngineTokenizer | None = None,
    cache: ArtefactCache | None = None,
) -> tuple[ModelCard, bytes]:
    """Return the model card and the encoded tokenizer artefact of the GGUF file at `path`.

    The card refers to the artefact by its SHA-256. `context_length` defaults to the trained length, capped at 8192.
    `tokenizer_json` replaces the tokenizer in the GGUF file; it is in the format of the `tokenizers` package. If there
    is an `engine`, its tokenizer is the reference, and tokenizers that only it knows are supported. Artefacts are kept
    in `cache`. Raises SettingsError for an invalid file or context length, for an unsupported tokenizer, and for a
    model that cannot generate text.
    """
    header = read_header(path)
    metadata = header.metadata
    vocabulary = Vocabulary.from_metadata(metadata)
    if vocabulary.kind in ENCODERS:
        raise SettingsError(
            f"{path} is a model for embeddings, with a tokenizer of the type {vocabulary.kind}: run it with"
            " `llama-server --embeddings`, and use that as a node"
        )
    artefact = make_artefact(path, header, vocabulary, tokenizer_json, engine, cache)
    card = ModelCard(
        id=model_id or model_id_from_path(path),
        context_length=_context_length(metadata, context_length),
        tokenizer=digest(artefact),
        chat_template=metadata.get("tokenizer.chat_template"),
        tool_template=metadata.get("tokenizer.chat_template.tool_use"),
        bos_token=_special_text(metadata, vocabulary, "bos"),
        eos_token=_special_text(metadata, vocabulary, "eos"),
        stop_tokens=_find_stop_tokens(metadata, vocabulary),
        created=int(path.stat().st_mtime),
        weights=fingerprint_gguf(path, header),
    )
    return card, artefact


def _context_length(metadata: Metadata, requested: int | None) -> int:
    trained = int(metadata.get(f"{metadata.get('general.architecture')}.context_length", _MAX_DEFAULT_CONTEXT))
    if requested is not None and not 0 < requested <= trained:
        raise SettingsError(f"invalid context length {requested}: expected 1 to {trained}, the model's maximum")
    return requested or min(trained, _MAX_DEFAULT_CONTEXT)


def _special_text(metadata: Metadata, vocabulary: Vocabulary, name: str) -> str:
    token = special_token(metadata, vocabulary, name)
    return "" if token is None else vocabulary.texts[token]


def _find_stop_tokens(metadata: Metadata, vocabulary: Vocabulary) -> tuple[int, ...]:
    declared = (special_token(metadata, vocabulary, name) for name in ("eos", "eot", "eom"))
    return tuple(sorted({*(token for token in declared if token is not None), *vocabulary.end_tokens()}))
