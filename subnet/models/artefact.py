"""Tokenizer artefact of a GGUF file: made from its vocabulary, and checked with the engine's own tokenizer."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from subnet.errors import SettingsError
from subnet.models.artefact_cache import ArtefactCache
from subnet.models.check import EngineTokenizer, find_difference
from subnet.models.encoding import UnknownEncoding, find_encoding
from subnet.models.gguf import Header, Metadata
from subnet.models.vocabulary import USER_DEFINED, Vocabulary
from subnet.node_info import TokenizerArtefact
from subnet.panics import panics_as_errors

logger = logging.getLogger(__name__)


def make_artefact(
    path: Path,
    header: Header,
    vocabulary: Vocabulary,
    tokenizer_json: Path | None = None,
    engine: EngineTokenizer | None = None,
    cache: ArtefactCache | None = None,
) -> bytes:
    """Return the encoded artefact of the GGUF file at `path`, from the cache if it is there.

    `tokenizer_json` replaces the file's tokenizer. If the tokenizer is one that only the `engine` knows, or that it
    runs in another way, the artefact says that the node tokenizes, and so does a line in the log. Raises
    SettingsError.
    """
    given = None if tokenizer_json is None else _read_tokenizer(tokenizer_json)
    key = "" if cache is None else _key(path, header, given, engine)
    data = None if cache is None else cache.get(key)
    if data is None:
        data = _make(path, header.metadata, vocabulary, given, engine).to_bytes()
        if cache is not None:
            cache.put(key, data)
    elif TokenizerArtefact.from_bytes(data).on_node:
        _log_on_node(path, "the gateway could not tokenize as its engine does")
    return data


def special_token(metadata: Metadata, vocabulary: Vocabulary, name: str) -> int | None:
    """Return the id of a special token, such as "bos"; None if the model has none."""
    token = metadata.get(f"tokenizer.ggml.{name}_token_id")
    return int(token) if token is not None and 0 <= token < len(vocabulary.texts) else None


def _make(
    path: Path, metadata: Metadata, vocabulary: Vocabulary, given: str | None, engine: EngineTokenizer | None
) -> TokenizerArtefact:
    try:
        encoding = find_encoding(metadata, vocabulary) if given is None else {"tokenizer_json": given}
    except UnknownEncoding as error:
        if engine is None:
            raise
        return _on_node(path, metadata, vocabulary, engine, error.message)
    artefact = TokenizerArtefact(
        pieces=vocabulary.pieces(),
        user_defined=sorted({*vocabulary.of_type(USER_DEFINED), *_added_token_ids(given)}),
        **_special_tokens(metadata, vocabulary),
        **encoding,
    )
    difference = None if engine is None else find_difference(artefact, engine, vocabulary.pre)
    if engine is None or difference is None:
        return artefact
    reason = f"the engine tokenizes the text that begins with {difference} in another way"
    if given is None:
        return _on_node(path, metadata, vocabulary, engine, reason)
    logger.warning("the tokenizer.json given for %s may not be that of the model: %s", path.name, reason)
    return artefact


def _on_node(
    path: Path, metadata: Metadata, vocabulary: Vocabulary, engine: EngineTokenizer, reason: str
) -> TokenizerArtefact:
    _log_on_node(path, reason)
    special = _special_tokens(metadata, vocabulary)
    pieces = vocabulary.pieces() if vocabulary.kind in ("gpt2", "llama") else engine.pieces()
    return TokenizerArtefact(pieces=pieces, on_node=True, **special)


def _log_on_node(path: Path, reason: str) -> None:
    logger.warning("prompts for %s are tokenized by this node, which takes longer: %s", path.name, reason)


def _special_tokens(metadata: Metadata, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "control": vocabulary.control_tokens(),
        "bos_id": special_token(metadata, vocabulary, "bos"),
        "add_bos": bool(metadata.get("tokenizer.ggml.add_bos_token", vocabulary.kind == "llama")),
    }


def _added_token_ids(tokenizer_json: str | None) -> Iterator[int]:
    """Yield the ids of the added tokens of a tokenizer.json that are not special."""
    document = {} if tokenizer_json is None else msgspec.json.decode(tokenizer_json, type=dict[str, Any])
    return (token["id"] for token in document.get("added_tokens") or () if not token["special"])


def _read_tokenizer(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        with panics_as_errors:
            Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing more precise
        raise SettingsError(f"{path} is not a valid tokenizer.json: {error}") from error
    return text


@functools.cache
def _edition() -> bytes:
    """Return a digest of the code that makes and checks artefacts."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).digest()


def _key(path: Path, header: Header, given: str | None, engine: EngineTokenizer | None) -> str:
    """Return the name under which the artefact is kept: a digest of all that it is made from."""
    found = hashlib.sha256(_edition())
    for part in ("" if engine is None else engine.version, given or ""):
        found.update(hashlib.sha256(part.encode()).digest())
    try:
        with path.open("rb") as file:
            found.update(file.read(header.size))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    return found.hexdigest()
