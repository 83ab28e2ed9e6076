"""Model card and tokenizer artefact of a model in Hugging Face format."""

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
    TOOL_TEMPLATE,
    Document,
    find_folder,
    read_document,
)
from subnet.models.pretrained_vocabulary import PretrainedVocabulary
from subnet.models.weights import fingerprint_folder
from subnet.node_info import ModelCard, TokenizerArtefact, digest

_DEFAULT_CONTEXT = 8192
"""Context length in tokens if config.json does not specify one."""

_CONTEXT_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
)
_LANGUAGE_MODEL_KEYS = ("text_config", "llm_config", "language_config")
"""Keys under which the config.json of a multimodal model nests the configuration of its language model."""

_SPECIAL_TOKEN_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_EXTRA_SPECIAL_KEYS = ("additional_special_tokens", "extra_special_tokens")


def describe_pretrained(
    reference: str | Path,
    model_id: str | None = None,
    context_length: int | None = None,
    report: Callable[[str], None] = print,
) -> tuple[ModelCard, bytes]:
    """Return the model card and the encoded tokenizer artefact of a model in Hugging Face format.

    `reference` is a folder with a tokenizer.json, or "owner/repo" on the Hugging Face hub; all files but the weights
    are then downloaded, which blocks. `context_length` overrides the one in config.json and is not checked against it,
    because a server may extend a model's context. Stop tokens are those of generation_config.json, or else config.json,
    the tokenizer's end-of-sequence token, and control tokens whose text marks the end of a turn. Without weights in the
    folder, their fingerprint is "". Raises SettingsError.
    """
    folder = find_folder(reference, DESCRIPTION, report)
    settings = read_document(folder, SPECIAL_TOKENS) | read_document(folder, TOKENIZER_CONFIG)
    config = read_document(folder, CONFIG)
    end_ids = _end_ids(read_document(folder, GENERATION_CONFIG), config)
    vocabulary = PretrainedVocabulary.read(folder, _special_texts(settings), end_ids)
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
        tool_template=_tool_template(folder, settings),
        bos_token=bos,
        eos_token=eos,
        stop_tokens=tuple(sorted({*end_ids, *vocabulary.end_tokens(eos)})),
        created=int((folder / TOKENIZER).stat().st_mtime),
        weights=fingerprint_folder(folder),
    )
    return card, artefact


def _name(reference: str | Path, folder: Path) -> str:
    return folder.resolve().name if Path(reference).expanduser() == folder else str(reference)


def _context_length(config: Document) -> int:
    for section in (config, *_language_models(config)):
        for name in _CONTEXT_LENGTH_KEYS:
            if isinstance(section.get(name), int):
                return int(section[name])
    return _DEFAULT_CONTEXT


def _language_models(config: Document) -> list[Document]:
    return [config[name] for name in _LANGUAGE_MODEL_KEYS if isinstance(config.get(name), dict)]


def _end_ids(generation: Document, config: Document) -> list[int]:
    configs = (generation, config, *_language_models(config))
    value: Any = next((section["eos_token_id"] for section in configs if section.get("eos_token_id") is not None), [])
    return [token for token in (value if isinstance(value, list) else [value]) if isinstance(token, int)]


def _adds_bos(settings: Document, vocabulary: PretrainedVocabulary, bos: str) -> bool:
    """Return whether prompts start with the BOS token.

    As in the transformers package, tokenizer_config.json takes precedence over tokenizer.json.
    """
    value = settings.get("add_bos_token")
    return bool(value) if value is not None else vocabulary.ids.get(bos, -1) in vocabulary.prefix_tokens[:1]


def _chat_template(folder: Path, settings: Document) -> str | None:
    """Return the chat template. A separate file takes precedence; of several named templates, "default" is used."""
    if (folder / TEMPLATE).exists():
        return _read_template(folder / TEMPLATE)
    return _named_template(settings, "default")


def _tool_template(folder: Path, settings: Document) -> str | None:
    """Return the template named "tool_use", if the model has several. A separate file takes precedence."""
    if (folder / TOOL_TEMPLATE).exists():
        return _read_template(folder / TOOL_TEMPLATE)
    return _named_template(settings, "tool_use") if isinstance(settings.get("chat_template"), list) else None


def _named_template(settings: Document, name: str) -> str | None:
    """Return the only template in the settings, or of several that of this name."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = (each for each in template if isinstance(each, dict))
        template = next((each.get("template") for each in named if each.get("name") == name), None)
    return template if isinstance(template, str) else None


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error


def _special_texts(settings: Document) -> set[str]:
    tokens = [settings.get(f"{name}_token") for name in _SPECIAL_TOKEN_NAMES]
    for name in _EXTRA_SPECIAL_KEYS:
        more = settings.get(name) or []
        tokens += more.values() if isinstance(more, dict) else more
    added = (settings.get("added_tokens_decoder") or {}).values()
    tokens += [token for token in added if isinstance(token, dict) and token.get("special")]
    return {_text(token) for token in tokens} - {""}


def _text(token: Any) -> str:
    """Return the text of a token that is given as a string or as an object with `content`; "" if there is none."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
