"""Encoding of messages as frames: one version byte, one type byte, then the message in MessagePack.

Unknown fields are ignored, and an unknown type raises UnknownFrame, so that a peer may have a newer version. All other
frames that cannot be decoded raise WireError, and so does an unknown field in a frame of more than 1 MiB: it could take
seconds to skip. The content of a Signed message is such a frame, too.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from subnet.errors import WireError
from subnet.generation import Sampling
from subnet.wire.messages import (
    MAX_STARTS,
    Accepted,
    ArtefactReply,
    ArtefactRequest,
    Cancel,
    ChoiceStart,
    Deltas,
    EmbedReply,
    EmbedRequest,
    Failed,
    Generate,
    InfoReply,
    InfoRequest,
    Message,
    Reply,
    Request,
    ScoreReply,
    ScoreRequest,
    Signed,
    TokenizeReply,
    TokenizeRequest,
)

VERSION = 2
MAX_FRAME = 32 * 1024 * 1024
"""Limit of a frame's size in bytes."""

_LENIENT_SIZE = 1024 * 1024
# Of the messages whose largest is far smaller than a frame.
_MAX_SIZES: dict[type[Message], int] = {
    InfoRequest: _LENIENT_SIZE,
    InfoReply: 2 * 1024 * 1024,
    ArtefactRequest: _LENIENT_SIZE,
    Accepted: _LENIENT_SIZE,
    Deltas: 2 * 1024 * 1024,
    Failed: _LENIENT_SIZE,
    Cancel: _LENIENT_SIZE,
}

_TYPES: dict[int, type[Message]] = {
    1: InfoRequest,
    2: InfoReply,
    3: ArtefactRequest,
    4: ArtefactReply,
    5: Generate,
    6: Accepted,
    7: Deltas,
    8: Failed,
    9: Cancel,
    10: EmbedRequest,
    11: EmbedReply,
    12: ScoreRequest,
    13: ScoreReply,
    14: TokenizeRequest,
    15: TokenizeReply,
    16: Signed,
}
_HEADERS = {message_type: bytes((VERSION, number)) for number, message_type in _TYPES.items()}


def _strict(struct: type[msgspec.Struct], **fields: object) -> Any:
    """Return the same type without unknown fields; `fields` are those that have another type in it."""
    types = list(fields.items())
    name = f"Large{struct.__name__}"
    return msgspec.defstruct(name, types, bases=(struct,), frozen=True, kw_only=True, forbid_unknown_fields=True)


_STARTS = Annotated[tuple[_strict(ChoiceStart), ...], Meta(max_length=MAX_STARTS)]  # type: ignore[valid-type,misc]
_FIELDS: dict[type[Message], dict[str, object]] = {Generate: {"sampling": _strict(Sampling), "starts": _STARTS}}
_STRICT_TYPES: dict[int, type[Message]] = {
    number: _strict(message_type, **_FIELDS.get(message_type, {})) for number, message_type in _TYPES.items()
}
_HEADERS |= {message_type: bytes((VERSION, number)) for number, message_type in _STRICT_TYPES.items()}
_LIMITS = {number: _MAX_SIZES.get(message_type, MAX_FRAME) for number, message_type in _TYPES.items()}
_DECODERS = {number: msgspec.msgpack.Decoder(message_type) for number, message_type in _TYPES.items()}
_STRICT_DECODERS = {number: msgspec.msgpack.Decoder(message_type) for number, message_type in _STRICT_TYPES.items()}
_ENCODER = msgspec.msgpack.Encoder()


class _Call(msgspec.Struct):
    call: int


_CALL_DECODER = msgspec.msgpack.Decoder(_Call)


class UnknownFrame(WireError):
    """Raised for a frame of an unknown type, which a newer version may define."""


def encode(message: Message) -> bytes:
    """Encode a message as a frame. Raises WireError if the frame is too large for a receiver."""
    header = _HEADERS[type(message)]
    frame = header + _ENCODER.encode(message)
    if len(frame) >= _LIMITS[header[1]]:
        raise WireError(f"a frame of {len(frame)} bytes exceeds the maximum of {_LIMITS[header[1]] - 1}")
    return frame


def decode(frame: bytes) -> Message:
    """Decode a frame. Raises UnknownFrame for an unknown type, and WireError for any other invalid frame."""
    message_type = type_of(frame)
    decoders = _DECODERS if len(frame) <= _LENIENT_SIZE else _STRICT_DECODERS
    try:
        return decoders[frame[1]].decode(memoryview(frame)[2:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"invalid {message_type.__name__} frame: {error}") from error


def type_of(frame: bytes) -> type[Message]:
    """Return the type of a frame's message, without decoding it. Raises the same errors as `decode`."""
    if len(frame) < 2 or len(frame) > MAX_FRAME:
        raise WireError(f"invalid frame size: {len(frame)} bytes")
    if frame[0] != VERSION:
        raise WireError(f"unsupported wire version {frame[0]}: expected {VERSION}")
    message_type = _TYPES.get(frame[1])
    if message_type is None:
        raise UnknownFrame(f"unknown frame type {frame[1]}")
    if len(frame) >= _LIMITS[frame[1]]:
        raise WireError(f"invalid {message_type.__name__} frame: {len(frame)} bytes exceed the maximum")
    return message_type


def call_of(frame: bytes) -> int:
    """Return the call of a frame that is not Deltas, without keeping anything else of it. Raises WireError."""
    if len(frame) > _LENIENT_SIZE:
        raise WireError(f"a frame of {len(frame)} bytes is not signed")
    try:
        return _CALL_DECODER.decode(memoryview(frame)[2:]).call
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"invalid {type_of(frame).__name__} frame: {error}") from error


def decode_content(signed: Signed) -> Request | Reply:
    """Decode the content of a message whose signature was checked. Raises WireError if it belongs to another call."""
    message = decode(signed.content)
    if not isinstance(message, Request | Reply) or message.call != signed.call:
        raise WireError(f"invalid Signed frame: unexpected {type(message).__name__} in it")
    return message
