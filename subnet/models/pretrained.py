"""What a node says of a model in Hugging Face's form: the model card and the tokenizer artefact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from subnet.errors import SettingsError
from subnet.models.pretrained_files import (
    CONFIG,
    DESCRIPTION,
    GENERATION_CONFIG,
    SPECIAL_TOKENS,
    TEMPLATE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    Document,
    find_folder,
    read_document,
)
from subnet.models.pretrained_vocabulary import PretrainedVocabulary
from subnet.node_info import ModelCard, TokenizerArtefact, digest

_CONTEXT = 8192
"""Tokens of context of a model whose files say nothing of it."""

_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
_PARTS = ("text_config", "llm_config", "language_config")
"""Where the configuration of a model that sees or hears has that of its language model."""

_SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")


def describe_pretrained(
    reference: str | Path,
    model_id: str | None = None,
    context_length: int | None = None,
    report: Callable[[str], None] = print,
) -> tuple[ModelCard, bytes]:
    """The card, and the artefact as bytes, whose digest the card names.

    `reference` is a folder with a tokenizer.json, or "owner/repo" on the Hugging Face hub, of which only the small
    files are fetched. `context_length` is taken at its word (a server may stretch a model's own) and defaults to what
    config.json has. What ends a turn is what generation_config.json says, or else config.json, and the tokenizer's own
    end. Raises SettingsError. Blocks while it downloads.
    """
    folder = find_folder(reference, DESCRIPTION, report)
    settings = read_document(folder, SPECIAL_TOKENS) | read_document(folder, TOKENIZER_CONFIG)
    config = read_document(folder, CONFIG)
    ends = _end_ids(read_document(folder, GENERATION_CONFIG), config)
    vocabulary = PretrainedVocabulary.read(folder, _special_texts(settings), ends)
    bos, eos = _text(settings.get("bos_token")), _text(settings.get("eos_token"))
    artefact = TokenizerArtefact(
        pieces=vocabulary.pieces,
        control=vocabulary.control,
        user_defined=vocabulary.user_defined,
        tokenizer_json=vocabulary.json,
        bos_id=vocabulary.ids.get(bos),
        add_bos=_adds_bos(settings, vocabulary, bos),
    ).to_bytes()
    card = ModelCard(
        id=model_id or _name(reference, folder),
        context_length=context_length or _context_length(config),
        tokenizer=digest(artefact),
        chat_template=_chat_template(folder, settings),
        bos_token=bos,
        eos_token=eos,
        stop_tokens=tuple(sorted({*ends, *([vocabulary.ids[eos]] if eos in vocabulary.ids else [])})),
        created=int((folder / TOKENIZER).stat().st_mtime),
    )
    return card, artefact


def _name(reference: str | Path, folder: Path) -> str:
    return folder.resolve().name if Path(reference).expanduser() == folder else str(reference)


def _context_length(config: Document) -> int:
    for part in (config, *_language_models(config)):
        for name in _LENGTHS:
            if isinstance(part.get(name), int):
                return int(part[name])
    return _CONTEXT


def _language_models(config: Document) -> list[Document]:
    return [config[name] for name in _PARTS if isinstance(config.get(name), dict)]


def _end_ids(generation: Document, config: Document) -> list[int]:
    parts = (generation, config, *_language_models(config))
    told: Any = next((part["eos_token_id"] for part in parts if part.get("eos_token_id") is not None), [])
    return [token for token in (told if isinstance(told, list) else [told]) if isinstance(token, int)]


def _adds_bos(settings: Document, vocabulary: PretrainedVocabulary, bos: str) -> bool:
    """The configuration wins over the file's own way, as it does in Hugging Face's package."""
    told = settings.get("add_bos_token")
    return bool(told) if told is not None else vocabulary.ids.get(bos, -1) in vocabulary.starts[:1]


def _chat_template(folder: Path, settings: Document) -> str | None:
    """A file of its own wins. Of several by name it is the one called default."""
    if (folder / TEMPLATE).exists():
        return _read_template(folder / TEMPLATE)
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = (each for each in template if isinstance(each, dict))
        template = next((each.get("template") for each in named if each.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error


def _special_texts(settings: Document) -> set[str]:
    tokens = [settings.get(f"{name}_token") for name in _SPECIAL]
    for name in _MORE_SPECIAL:
        more = settings.get(name) or []
        tokens += more.values() if isinstance(more, dict) else more
    added = (settings.get("added_tokens_decoder") or {}).values()
    tokens += [token for token in added if isinstance(token, dict) and token.get("special")]
    return {_text(token) for token in tokens} - {""}


def _text(token: Any) -> str:
    """Of a token that is written as its text, or as a table with it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
