"""What the two ends of the subnet wire say to each other.

Every message belongs to a call; `call` is chosen by the client and unique on its connection. The client opens a
call with InfoRequest, ArtefactRequest or Generate, and may Cancel it. The node ends it with InfoReply,
ArtefactReply, Failed or, after Accepted, with the delta that finishes the last choice.
"""

from __future__ import annotations

import msgspec

from subnet.generation import Sampling
from subnet.node_info import NodeInfo
from subnet.tensors import Tensor


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


Message = InfoRequest | InfoReply | ArtefactRequest | ArtefactReply | Generate | Accepted | Deltas | Failed | Cancel
