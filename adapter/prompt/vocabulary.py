"""A tokenizer.json made fit for text that nobody vouches for."""

from __future__ import annotations

from typing import Any

import msgspec
import tokenizers

from subnet.errors import SettingsError
from subnet.node_info import TokenizerArtefact


def plain_tokenizer(artefact: TokenizerArtefact) -> tokenizers.Tokenizer:
    """Knows no control and no user-defined tokens, adds none, and cuts nothing off. Raises SettingsError."""
    try:
        document = msgspec.json.decode(artefact.tokenizer_json or "", type=dict[str, Any])
        ours = {*artefact.control, *artefact.user_defined}
        document["added_tokens"] = [
            token for token in document.get("added_tokens", []) if token["id"] not in ours and not token["special"]
        ]
        document |= {"post_processor": None, "truncation": None, "padding": None}
        _hide(document["model"], frozenset(artefact.control))
        return tokenizers.Tokenizer.from_str(msgspec.json.encode(document).decode())
    except Exception as error:  # the package raises nothing more precise
        raise SettingsError(f"invalid tokenizer: {error}") from error


def _hide(model: dict[str, Any], control: frozenset[int]) -> None:
    """A vocabulary may list control tokens, and some models match any text that it lists: these get a name that no
    text has."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [
            [_hidden(token) if token in control else piece, score] for token, (piece, score) in enumerate(vocabulary)
        ]
    else:
        model["vocab"] = {
            _hidden(token) if token in control and piece != model.get("unk_token") else piece: token
            for piece, token in vocabulary.items()
        }


def _hidden(token: int) -> str:
    return f"\ufdd0\ufdd1{token}"
