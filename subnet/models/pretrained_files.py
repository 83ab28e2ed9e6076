"""Files of a model in Hugging Face format, from a local folder or downloaded from the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from subnet.errors import SettingsError

Document = dict[str, Any]

TEMPLATE, TOOL_TEMPLATE = "chat_template.jinja", "additional_chat_templates/tool_use.jinja"
TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
DESCRIPTION = (TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, TEMPLATE, TOOL_TEMPLATE, CONFIG, GENERATION_CONFIG)
"""All files of a model but the weights."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def find_folder(reference: str | Path, patterns: Sequence[str], report: Callable[[str], None]) -> Path:
    """Return the local folder of a model, after downloading it if `reference` is "owner/repo" on the Hugging Face hub.

    Only files that match `patterns` are downloaded, once, with a progress bar; `report` is called with a line of text
    before. Blocks while it downloads. Raises SettingsError.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        return path
    if path.exists() or not _REPOSITORY.fullmatch(str(reference)):
        raise SettingsError(f"model folder not found: {reference}")
    return _download(str(reference), patterns, report)


def read_document(folder: Path, name: str) -> Document:
    """Return the JSON object in file `name` of `folder`, or {} if there is no such file. Raises SettingsError."""
    try:
        return msgspec.json.decode((folder / name).read_bytes(), type=Document)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{folder / name} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{folder / name} is not a JSON object: {error}") from error


def _download(repo: str, patterns: Sequence[str], report: Callable[[str], None]) -> Path:
    # Imported here because it takes half a second.
    from huggingface_hub import snapshot_download

    report(f"downloading {repo} (cached files are reused)")
    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except Exception as error:  # errors of the package, of its HTTP client, and OSError
        raise SettingsError(f"{repo} cannot be downloaded: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of the error's message, or its type if that is empty.

    Messages of the Hugging Face packages can be pages long.
    """
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
