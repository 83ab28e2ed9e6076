"""Description of the model behind a server: its card, and its tokenizer, which the server does not provide."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from subnet import threads
from subnet.errors import SettingsError
from subnet.http.node_spec import NodeSpec
from subnet.models.card import describe
from subnet.models.pretrained import describe_pretrained
from subnet.models.resolve import resolve
from subnet.node_info import Capabilities, ModelCard, TokenizerArtefact

SAMPLE = "A naïve café, 12 中 🎉"
"""Text that a server and the tokenizer found for it must tokenize to the same bytes."""

logger = logging.getLogger(__name__)


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Model behind a server. `name` is the server's name of it; `capacity` is the number of choices at once."""

    name: str
    card: ModelCard
    artefact: bytes
    capabilities: Capabilities
    capacity: int


def model_names(spec: NodeSpec, default_name: str) -> tuple[str, str]:
    """Return the id to serve the model under, and the server's name of it.

    Both come from the first model in `spec`, or are `default_name`, the server's first model, if `spec` has none.
    """
    model_id, served_name = next(iter(spec.models.items()), (default_name, default_name))
    return model_id, served_name or default_name


async def describe_reference(
    reference: str | None, model_id: str, weights: str, **overrides: Any
) -> tuple[ModelCard, bytes]:
    """Return the model card and the encoded tokenizer artefact of the model at `reference`.

    `reference` is a GGUF file, a tokenizer.json, its folder, or "owner/repo" on the Hugging Face hub, from which files
    are downloaded. `weights` is the fingerprint of the server's weights: those at `reference` may be others.
    `overrides` replace fields of the card; empty values are ignored. Raises SettingsError, with the setting to change,
    if `reference` is None or there is no tokenizer.
    """
    try:
        if reference is None:
            raise SettingsError("the server does not report where its tokenizer is")
        card, artefact = await threads.run("describe", _describe, reference, model_id)
    except SettingsError as error:
        raise SettingsError(
            f"no tokenizer for {model_id}: {error.message}; set `tokenizer` to a folder, a GGUF file or a hub reference"
        ) from error
    changes = {name: value for name, value in overrides.items() if value}
    return msgspec.structs.replace(card, weights=weights, **changes), artefact


def _describe(reference: str, model_id: str) -> tuple[ModelCard, bytes]:
    if reference.endswith(".gguf"):
        return describe(resolve(reference, logger.info), model_id)
    path = Path(reference)
    return describe_pretrained(path.parent if path.name == "tokenizer.json" else reference, model_id)


def text_token(pieces: Sequence[bytes]) -> int:
    """Return a token that is text."""
    return next((token for token, piece in enumerate(pieces) if piece == b"a"), 0)


def matches_sample(artefact: bytes, response: Any) -> bool:
    """Return whether the ids in a server's response, {"tokens": [...]}, decode to SAMPLE with this artefact.

    Surrounding whitespace is ignored, because some tokenizers prepend a space.
    """
    pieces = TokenizerArtefact.from_bytes(artefact).pieces
    try:
        return b"".join(pieces[token] for token in response["tokens"]).strip() == SAMPLE.encode()
    except (LookupError, TypeError):
        return False
