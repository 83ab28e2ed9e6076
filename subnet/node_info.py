"""Description of a node, which `rpc_info` returns, and the place that its operator gave it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from subnet.errors import SettingsError, WireError

Resume = Literal["continue", "replay", "exact"]
Lane = Literal["token", "chat"]
GrammarKind = Literal["json_schema", "regex", "lark"]
Modality = Literal["image", "audio", "file"]

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""Number that a node reports, and that is checked when it is received."""

# Limits of what a node may send. Files of models stay far below them: the longest token known has some hundred bytes.
MAX_PIECES = 2**21
MAX_PIECE = 4096
"""Maximum length of a token, in bytes. It bounds the text that a node can produce with a frame of token ids."""
MAX_ARTEFACT = 31 * 2**20
"""Maximum size of an encoded artefact, in bytes: it fits into one frame."""
_MAX_PATTERN = 16_384
_MAX_PASSES = 32
_MAX_CONTEXT = 2**27
_MAX_NAME = 1024
_MAX_STOP_TOKENS = 1024
_MAX_TEMPLATE = 2**20
_MAX_CARDS = 64
_MAX_PARAMETERS = 1024

_TokenId = Annotated[int, Meta(ge=0, lt=MAX_PIECES)]
_Piece = Annotated[bytes, Meta(max_length=MAX_PIECE)]
_Pattern = Annotated[str, Meta(max_length=_MAX_PATTERN)]
_Template = Annotated[str, Meta(max_length=_MAX_TEMPLATE)]
_Name = Annotated[str, Meta(max_length=_MAX_NAME)]
_Sha256 = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{64})?\Z")]


class TokenizerArtefact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything needed to tokenize as the model does, without a download.

    `pieces[i]` are the bytes of token i; control tokens have their text. `control` ids never come from a
    user's text and are never part of an answer's text; `user_defined` ids are matched before everything else.
    One of three is set. `merges` are the token ids of a BPE tokenizer in merge order; it splits text into words by
    `pattern` or by `passes`, see subnet/models/patterns.py, and merges bytes, or characters with `by_character`, where
    texts start with a space if `space_prefix`. `tokenizer_json` has the format of the `tokenizers` package. With
    `on_node`, only the node can tokenize: see `rpc_tokenize`.
    `add_bos`: a prompt that was not rendered by a chat template starts with `bos_id`.
    """

    pieces: Annotated[list[_Piece], Meta(max_length=MAX_PIECES)]
    control: list[_TokenId]
    user_defined: list[_TokenId] = []
    pattern: _Pattern | None = None
    passes: Annotated[list[_Pattern], Meta(max_length=_MAX_PASSES)] = []
    merges: list[_TokenId] | None = None
    by_character: bool = False
    space_prefix: bool = False
    tokenizer_json: str | None = None
    on_node: bool = False
    bos_id: _TokenId | None = None
    add_bos: bool = False

    def to_bytes(self) -> bytes:
        """Encode the artefact. Raises SettingsError if a receiver would refuse it."""
        data = msgspec.msgpack.encode(self)
        try:
            TokenizerArtefact.from_bytes(data)
        except WireError as error:
            raise SettingsError(error.message) from error
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> TokenizerArtefact:
        """Decode an artefact. Raises WireError if it is invalid or exceeds a limit."""
        if len(data) > MAX_ARTEFACT:
            raise WireError(f"invalid tokenizer artefact: {len(data)} bytes exceed the maximum of {MAX_ARTEFACT}")
        try:
            artefact = msgspec.msgpack.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WireError(f"invalid tokenizer artefact: {error}") from error
        artefact._check_ids()
        return artefact

    def _check_ids(self) -> None:
        bos = [] if self.bos_id is None else [self.bos_id]
        highest = max(max(ids, default=-1) for ids in (self.control, self.user_defined, self.merges or [], bos))
        if highest >= len(self.pieces):
            raise WireError(f"invalid tokenizer artefact: token {highest} is not one of its {len(self.pieces)} pieces")


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal, which identifies an artefact."""
    return hashlib.sha256(data).hexdigest()


def fingerprint_facts(server: str, model: str | None, *facts: object) -> str:
    """Return a fingerprint of what the type of server `server` reports on its `model`, a name or path, and its weights.

    It is "" if the model is not known. It differs from those of files and of other types of servers.
    """
    return digest("\0".join([server, model, *map(str, facts)]).encode("utf-8", "replace")) if model else ""


def short(fingerprint: str) -> str:
    """Return the beginning of a fingerprint that a node reported, to be shown to people."""
    return "".join(char for char in fingerprint[:12] if " " < char <= "~")


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a model, with everything that a gateway needs to serve it.

    `stop_tokens` end an answer (end of sequence, end of turn). `tokenizer` is the SHA-256 of the tokenizer artefact,
    which `rpc_artefact` returns. On the chat lane, where the node accepts messages instead of tokens, `tokenizer` is
    "", there is no chat template, and a `context_length` of 0 is unknown. `tool_template` is a template of its own for
    requests with tools, if the model has one. `modalities` are the inputs besides text. `created` is a Unix time in
    seconds, 0 if it is not known. `tools`, `reasoning` and `parameters` are what a server of the chat lane says that
    the model supports (None, or no parameters: it does not say).
    `weights` is a fingerprint of the model's weights, see subnet/models/weights.py and `fingerprint_facts`; "" if it is
    not known.
    """

    id: _Name
    context_length: Annotated[int, Meta(ge=0, le=_MAX_CONTEXT)]
    tokenizer: _Sha256
    chat_template: _Template | None = None
    tool_template: _Template | None = None
    bos_token: Annotated[str, Meta(max_length=MAX_PIECE)] = ""
    eos_token: Annotated[str, Meta(max_length=MAX_PIECE)] = ""
    stop_tokens: Annotated[tuple[_TokenId, ...], Meta(max_length=_MAX_STOP_TOKENS)] = ()
    created: Annotated[int, Meta(ge=0, le=2**40)] = 0
    lane: Lane = "token"
    modalities: Annotated[tuple[Modality, ...], Meta(max_length=16)] = ()
    weights: _Name = ""
    tools: bool | None = None
    reasoning: bool | None = None
    parameters: Annotated[tuple[_Name, ...], Meta(max_length=_MAX_PARAMETERS)] = ()

    @property
    def identity(self) -> str:
        """Digest of what prompts and the end of answers depend on; "" on the chat lane, where the server makes both."""
        if self.lane == "chat":
            return ""
        parts = (
            *(self.tokenizer, self.chat_template, self.tool_template),
            *(self.bos_token, self.eos_token, self.stop_tokens),
        )
        return digest(msgspec.msgpack.encode(parts))


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Optional features of an engine.

    Every engine supports temperature, top_p, seed, max_tokens and stop_tokens. Other fields of Sampling are rejected by
    name unless they are declared here. `top_logprobs` is the maximum per token; 0: no logprobs. `penalties` are all
    three penalties. `positional_draws`: what is drawn depends on seed, position and the tokens before it alone, so that
    an answer without penalties and grammar that is continued with its own seed goes on as it would have. For the chat
    lane: `prefill`, the node continues a prefix, see ChatRequest; `seeds`, it gives the
    same answer for the same seed; `replay`, it may be asked for an answer again, to resume it.
    """

    resume: Resume = "continue"
    positional_draws: bool = False
    top_logprobs: Count = 0
    top_k: bool = False
    min_p: bool = False
    typical_p: bool = False
    penalties: bool = False
    logit_bias: bool = False
    min_tokens: bool = False
    ignore_eos: bool = False
    embeddings: bool = False
    prompt_logprobs: bool = False
    grammars: Annotated[tuple[GrammarKind, ...], Meta(max_length=16)] = ()
    prefill: bool = False
    seeds: bool = False
    replay: bool = True


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Current state of a node, with the models that it serves.

    `capacity` and `running` count choices; `process` is the process id. Unless `limited`, the capacity is an estimate
    to compare loads with: the node accepts any number of requests.
    """

    node_id: _Name
    version: _Name
    engine: _Name
    cards: Annotated[tuple[ModelCard, ...], Meta(max_length=_MAX_CARDS)]
    capabilities: Capabilities
    capacity: Count
    limited: bool = True
    running: Count = 0
    process: Count = 0
    draining: bool = False

    def card(self, model: str | None) -> ModelCard | None:
        """Return the card of `model`, or of the first model for None; None if the node does not serve it."""
        return next((card for card in self.cards if model in (None, card.id)), None)


class Placement(msgspec.Struct, frozen=True):
    """Place of a model on one node among all nodes that serve it, as the operator gave it.

    `named`: the operator named the model for this node, so that it may decide what the name stands for.

    A node with a higher `priority` number is asked only when none with a lower number is available. Among nodes of the
    same priority, `weight` is the share of requests relative to the others.
    """

    priority: int = 0
    weight: float = 1.0
    named: bool = False


DEFAULT_PLACEMENT = Placement()
