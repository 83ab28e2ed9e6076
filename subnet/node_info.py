"""How a node describes itself: what `rpc_info` answers."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from subnet.errors import WireError

Resume = Literal["continue", "replay", "exact"]
Lane = Literal["token", "chat"]
GrammarKind = Literal["json_schema", "regex", "lark"]
Modality = Literal["image", "audio", "file"]


class TokenizerArtefact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that is needed to tokenize as the model does, without a download.

    `pieces[i]` are the bytes of token i; control tokens have their text. `control` ids never come from a
    user's text and are not shown; `user_defined` ids are matched in any text before everything else.
    Either `pattern` and `merges` (byte-level BPE: the split pattern, and token ids in merge order), or
    `tokenizer_json` (the format of the `tokenizers` package) is set.
    `add_bos`: a bare prompt, one that no chat template made, starts with `bos_id`.
    """

    pieces: list[bytes]
    control: list[int]
    user_defined: list[int] = []
    pattern: str | None = None
    merges: list[int] | None = None
    tokenizer_json: str | None = None
    bos_id: int | None = None
    add_bos: bool = False

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> TokenizerArtefact:
        """Raises WireError."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise WireError(f"invalid tokenizer artefact: {error}") from error


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal: the name of an artefact."""
    return hashlib.sha256(data).hexdigest()


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway must know of a model to serve it. `stop_tokens` end a turn (end of sequence, end of turn).

    `tokenizer` is the SHA-256 of the tokenizer artefact, which the node hands out on `rpc_artefact`. On the chat lane
    the node takes messages instead of tokens: then there is none, nor a template, and a `context_length` of 0 is
    unknown. `modalities` are what it understands in a message, beside text.
    """

    id: str
    context_length: int
    tokenizer: str
    chat_template: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    stop_tokens: tuple[int, ...] = ()
    created: int = 0
    lane: Lane = "token"
    modalities: tuple[Modality, ...] = ()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do beyond what all do: draw by temperature, top_p and seed, and end at max_tokens and
    stop_tokens. The other fields of Sampling are refused by name where they are not declared here.

    `top_logprobs` is the most it gives per token; 0 is none. `penalties` are all three. `prefill` is for the chat
    lane: it goes on with an answer that was begun, see ChatRequest.
    """

    resume: Resume = "continue"
    top_logprobs: int = 0
    top_k: bool = False
    min_p: bool = False
    typical_p: bool = False
    penalties: bool = False
    logit_bias: bool = False
    min_tokens: bool = False
    ignore_eos: bool = False
    embeddings: bool = False
    prompt_logprobs: bool = False
    grammars: tuple[GrammarKind, ...] = ()
    prefill: bool = False


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A node now, with the models that it serves. `capacity` and `running` count choices in generation; `process` is
    a process id.
    """

    node_id: str
    version: str
    engine: str
    cards: tuple[ModelCard, ...]
    capabilities: Capabilities
    capacity: int
    running: int = 0
    process: int = 0
    draining: bool = False

    def card(self, model: str | None) -> ModelCard | None:
        """Of `model`, or of the first for None; None where it does not serve it."""
        return next((card for card in self.cards if model in (None, card.id)), None)
