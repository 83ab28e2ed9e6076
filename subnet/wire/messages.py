"""What the two ends of the subnet wire say to each other.

Every message belongs to a call; `call` is chosen by the client and unique on its connection. The client opens a
call with InfoRequest, ArtefactRequest, EmbedRequest, ScoreRequest or Generate, and may Cancel it. The node ends it with
the reply of the same name, with Failed or, after Accepted, with the delta that finishes the last choice.
"""

from __future__ import annotations

import msgspec

from subnet.generation import Sampling, TokenLogprobs
from subnet.node_info import NodeInfo
from subnet.wire.tensors import Tensor


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of who sent a message. `nonce` is fresh random bytes; `time` is in seconds since the epoch."""

    scheme: str
    nonce: bytes
    time: float
    signature: bytes


class InfoRequest(msgspec.Struct, frozen=True):
    call: int
    auth: Auth | None = None


class InfoReply(msgspec.Struct, frozen=True):
    call: int
    info: NodeInfo
    auth: Auth | None = None


class ArtefactRequest(msgspec.Struct, frozen=True):
    call: int
    sha256: str
    auth: Auth | None = None


class ArtefactReply(msgspec.Struct, frozen=True):
    call: int
    data: bytes


MOST_TEXTS = 256
"""In one EmbedRequest: what comes of them fits a frame, whatever the model."""


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Make an embedding of each text in `inputs` (int32, one-dimensional)."""

    call: int = 0
    model: str | None
    inputs: tuple[Tensor, ...]
    auth: Auth | None = None


class EmbedReply(msgspec.Struct, frozen=True):
    """`embeddings`: float32, shape (texts, dimensions), each of length 1."""

    call: int
    embeddings: Tensor
    auth: Auth | None = None


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Say how likely each of `tokens` (int32, one-dimensional) is after those before it, and which `width` tokens are
    likeliest in its place."""

    call: int = 0
    model: str | None
    tokens: Tensor
    width: int
    auth: Auth | None = None


class ScoreReply(msgspec.Struct, frozen=True):
    """`logprobs` has an entry for each token but the first."""

    call: int
    logprobs: list[TokenLogprobs]
    auth: Auth | None = None


class ChoiceStart(msgspec.Struct, frozen=True):
    """`delivered` (int32, one-dimensional): the tokens this choice already has; see generation.Start."""

    choice: int
    delivered: Tensor


class Generate(msgspec.Struct, frozen=True, kw_only=True):
    """Run the model on `prompt` (int32, one-dimensional). `text` is the prompt as text, where it is known."""

    call: int = 0
    model: str | None
    prompt: Tensor
    sampling: Sampling
    starts: tuple[ChoiceStart, ...]
    text: str | None = None
    auth: Auth | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The node took the work; `auth` proves to the client which node it is."""

    call: int
    auth: Auth | None = None


class Deltas(msgspec.Struct, frozen=True, array_like=True):
    """One engine step: the new tokens of all streams of a connection, as columns. See columns.py.

    Row i is one delta: it belongs to `calls[i]` (uint32) and `choices[i]` (uint16) and owns the next
    `counts[i]` (uint16) of `tokens` (int32). `ends` (uint8) is the finish reason per row, 0 for none.
    `cached` (row -> tokens) names rows whose prompt was found in the KV cache. `logprobs` has one entry per
    row that carries any.
    """

    calls: bytes
    choices: bytes
    counts: bytes
    tokens: bytes
    ends: bytes
    cached: dict[int, int] = {}
    logprobs: dict[int, RowLogprobs] = {}


class RowLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Of one row: `logprobs` (float32) per token; `widths` (uint8) alternatives of each, concatenated in
    `top_ids` (int32) and `top_logprobs` (float32)."""

    logprobs: bytes
    widths: bytes
    top_ids: bytes
    top_logprobs: bytes


class Failed(msgspec.Struct, frozen=True):
    """The call ended in an error: `code` is one of errors.py."""

    call: int
    code: str
    message: str
    retry_after: float | None = None
    param: str | None = None


class Cancel(msgspec.Struct, frozen=True):
    call: int


Request = InfoRequest | ArtefactRequest | EmbedRequest | ScoreRequest | Generate
Reply = InfoReply | ArtefactReply | EmbedReply | ScoreReply | Accepted
Message = Request | Reply | Deltas | Failed | Cancel
