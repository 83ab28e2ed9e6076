"""The model behind a server: its card, and the tokenizer that the server does not hand out."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec

from subnet.errors import SettingsError
from subnet.http.node_spec import NodeSpec
from subnet.models.card import describe
from subnet.models.pretrained import describe_pretrained
from subnet.models.resolve import resolve
from subnet.node_info import Capabilities, ModelCard, TokenizerArtefact

SAMPLE = "A naïve café, 12 中 🎉"
"""What a server and the tokenizer found for it must agree about."""

logger = logging.getLogger(__name__)


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is the server's own of it; `capacity` are the choices that it writes at once."""

    name: str
    card: ModelCard
    artefact: bytes
    capabilities: Capabilities
    capacity: int


def names(spec: NodeSpec, first: str) -> tuple[str, str]:
    """The name under which to serve, and the server's own, of the first model in `spec`; `first` is the server's own
    first, which counts where `spec` names none.
    """
    served, own = next(iter(spec.models.items()), (first, first))
    return served, own or first


async def describe_reference(reference: str | None, model_id: str, **told: Any) -> tuple[ModelCard, bytes]:
    """The card and the tokenizer artefact of a GGUF file, a tokenizer.json, its folder, or "owner/repo" on a hub, of
    which files may be fetched. `told` are fields of the card that the server knows better; empty ones do not count.

    Raises SettingsError, saying what to set.
    """
    try:
        if reference is None:
            raise SettingsError("the server does not report where its tokenizer is")
        card, artefact = await asyncio.to_thread(_described, reference, model_id)
    except SettingsError as error:
        raise SettingsError(
            f"no tokenizer for {model_id}: {error.message}; set `tokenizer` to a folder, a GGUF file or a hub reference"
        ) from error
    return msgspec.structs.replace(card, **{name: value for name, value in told.items() if value}), artefact


def _described(reference: str, model_id: str) -> tuple[ModelCard, bytes]:
    if reference.endswith(".gguf"):
        return describe(resolve(reference, logger.info), model_id)
    path = Path(reference)
    return describe_pretrained(path.parent if path.name == "tokenizer.json" else reference, model_id)


def reads_sample(artefact: bytes, answer: Any) -> bool:
    """Whether the ids in a server's answer, {"tokens": [...]}, are SAMPLE by this artefact; some begin with a space."""
    pieces = TokenizerArtefact.from_bytes(artefact).pieces
    try:
        return b"".join(pieces[token] for token in answer["tokens"]).strip() == SAMPLE.encode()
    except (LookupError, TypeError):
        return False
