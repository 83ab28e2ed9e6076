"""Messages between gateways and nodes.

Each message belongs to a call, whose number `call` the client chooses and which is unique on its connection. The client
starts a call with InfoRequest, ArtefactRequest, EmbedRequest, ScoreRequest, TokenizeRequest or Generate, and may Cancel
it. The node ends it with the reply of the same name, with Failed or, after Accepted, with the delta that finishes the
last choice. With an authorizer, requests and replies are sent as the content of Signed messages; an ArtefactReply,
which is checked by its digest, and all other messages are not signed.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from subnet.generation import Sampling
from subnet.node_info import NodeInfo
from subnet.tensors import Tensor

CallNumber = Annotated[int, Meta(ge=0, le=2**32 - 1)]
_Name = Annotated[str, Meta(max_length=1024)]
_Sha256 = Annotated[str, Meta(max_length=64)]


class Auth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Signature of a message, which covers all other fields of this object and the content.

    `node` is the id of the node that a request is meant for, "" in a response, and in the InfoRequest that asks for the
    id. `nonce` is fresh random bytes; `time` is in seconds since the Unix epoch.
    """

    scheme: Annotated[str, Meta(max_length=64)]
    node: Annotated[str, Meta(max_length=256)] = ""
    nonce: Annotated[bytes, Meta(max_length=64)]
    time: float
    signature: Annotated[bytes, Meta(max_length=4096)]


class Signed(msgspec.Struct, frozen=True):
    """Signed request or reply. `content` is the frame of the message, which belongs to the same `call`.

    The signature is of these bytes, so that nothing of a stranger's message has to be decoded to check it.
    """

    call: CallNumber
    auth: Auth
    content: bytes


class InfoRequest(msgspec.Struct, frozen=True):
    call: CallNumber


class InfoReply(msgspec.Struct, frozen=True):
    call: CallNumber
    info: NodeInfo


class ArtefactRequest(msgspec.Struct, frozen=True):
    call: CallNumber
    sha256: _Sha256


class ArtefactReply(msgspec.Struct, frozen=True):
    call: CallNumber
    data: bytes


MAX_TEXTS = 256
"""Maximum number of texts in one EmbedRequest: their embeddings fit into one frame for any model."""

MAX_DIMENSIONS = 2**14
"""Maximum number of dimensions of an embedding."""

# A longer list is refused before it is decoded; engines refuse shorter ones with a reason.
_MAX_TENSORS = 4096


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request for an embedding of each text in `inputs` (token ids: int32, one-dimensional)."""

    call: CallNumber = 0
    model: _Name | None
    inputs: Annotated[tuple[Tensor, ...], Meta(max_length=_MAX_TENSORS)]


class EmbedReply(msgspec.Struct, frozen=True):
    """Embeddings of the requested texts: float32, shape (texts, dimensions), each of length 1."""

    call: CallNumber
    embeddings: Tensor


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request for the logprob of each of `tokens` (int32, one-dimensional) given those before it, and for the `width`
    most likely tokens at each position.
    """

    call: CallNumber = 0
    model: _Name | None
    tokens: Tensor
    width: int


class ScoreReply(msgspec.Struct, frozen=True):
    """Logprobs of the requested tokens: one entry for each token except the first, see columns.unpack_logprobs."""

    call: CallNumber
    logprobs: RowLogprobs


MAX_TOKENIZE_TEXTS = 4096
"""Maximum number of texts in one TokenizeRequest."""

MAX_TOKENIZE_SIZE = 4 * 2**20
"""Maximum size of all texts in one TokenizeRequest, in bytes of UTF-8: their token ids fit into one frame."""


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Request for the token ids of each of `texts`, without tokens that are added, by the tokenizer whose artefact has
    the digest `sha256`. Texts of control tokens stay text.
    """

    call: CallNumber = 0
    sha256: _Sha256
    texts: Annotated[tuple[str, ...], Meta(max_length=2 * MAX_TOKENIZE_TEXTS)]


class TokenizeReply(msgspec.Struct, frozen=True):
    """Token ids of each text: int32, one-dimensional."""

    call: CallNumber
    tokens: Annotated[tuple[Tensor, ...], Meta(max_length=MAX_TOKENIZE_TEXTS)]


MAX_STARTS = 2**16
"""Maximum number of choices in one Generate."""


class ChoiceStart(msgspec.Struct, frozen=True):
    """Choice to generate: `delivered` (int32, one-dimensional) are the tokens it already has; see generation.Start.

    `position` is the number of its tokens that are the end of the prompt instead, in the request of a continuation.
    """

    choice: int
    delivered: Tensor
    position: int = 0


class Generate(msgspec.Struct, frozen=True, kw_only=True):
    """Request to generate from `prompt` (int32, one-dimensional). `text` is the prompt as text, None if unknown."""

    call: CallNumber = 0
    model: _Name | None
    prompt: Tensor
    sampling: Sampling
    starts: Annotated[tuple[ChoiceStart, ...], Meta(max_length=MAX_STARTS)]
    text: str | None = None


class Accepted(msgspec.Struct, frozen=True):
    """Confirmation that the node has started on a Generate request. Its signature authenticates the node."""

    call: CallNumber


class Deltas(msgspec.Struct, frozen=True, array_like=True):
    """New tokens of one engine step, of all streams of a connection, as columns. See columns.py.

    Row i is one delta: it belongs to `calls[i]` (uint32) and `choices[i]` (uint16) and has the next `counts[i]`
    (uint16) tokens of `tokens` (int32). `ends` (uint8) is the code of each row's finish reason, 0 for None. `cached`
    maps rows to the number of prompt tokens found in the KV cache, for rows with any. `logprobs` maps rows to their
    logprobs, for rows with any.
    """

    calls: bytes
    choices: bytes
    counts: bytes
    tokens: bytes
    ends: bytes
    cached: dict[int, int] = {}
    logprobs: dict[int, RowLogprobs] = {}


class RowLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Logprobs of one row: `logprobs` (float32) of each token, and the number of its alternatives in `widths` (uint8).

    The alternatives of all tokens are concatenated in `top_ids` (int32) and `top_logprobs` (float32).
    """

    logprobs: bytes
    widths: bytes
    top_ids: bytes
    top_logprobs: bytes


MAX_RETRY_AFTER = 86_400.0
"""Maximum time until a retry, in seconds: a longer one would be a mistake."""

RetryAfter = Annotated[float, Meta(ge=0, le=MAX_RETRY_AFTER)]


MAX_MESSAGE = 4096
"""Maximum length of the message of an error, in characters."""


class Failed(msgspec.Struct, frozen=True):
    """Error that ends a call. `code` is one of the codes in subnet/errors.py; `retry_after` is in seconds."""

    call: CallNumber
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=MAX_MESSAGE)]
    retry_after: RetryAfter | None = None
    param: _Name | None = None


class Cancel(msgspec.Struct, frozen=True):
    call: CallNumber


Request = InfoRequest | ArtefactRequest | EmbedRequest | ScoreRequest | TokenizeRequest | Generate
Reply = InfoReply | ArtefactReply | EmbedReply | ScoreReply | TokenizeReply | Accepted
Message = Request | Reply | Signed | Deltas | Failed | Cancel
