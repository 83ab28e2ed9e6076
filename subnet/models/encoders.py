"""The encoder for an artefact."""

from __future__ import annotations

from subnet.errors import SettingsError
from subnet.models.character_pairs import CharacterPairEncoder
from subnet.models.encoder import BytePairEncoder, Encoder, JsonEncoder
from subnet.node_info import TokenizerArtefact


def load_encoder(artefact: TokenizerArtefact) -> Encoder:
    """Create the encoder of an artefact. Takes up to a second for a large vocabulary. Raises SettingsError for an
    invalid artefact.
    """
    if artefact.merges is not None and artefact.by_character and artefact.pattern is not None:
        return CharacterPairEncoder(artefact)
    if artefact.merges is not None and not artefact.by_character and (artefact.pattern is not None or artefact.passes):
        return BytePairEncoder(artefact)
    if artefact.tokenizer_json is not None:
        return JsonEncoder(artefact)
    raise SettingsError("invalid tokenizer: expected BPE merges or a tokenizer.json, but got neither")
