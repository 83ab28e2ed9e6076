"""Decompression of request bodies."""

from __future__ import annotations

import zlib

from adapter.errors import BadRequest, BodyTooLarge, UnsupportedContentCoding
from adapter.offload import offload_if_large
from subnet.inflate import CODINGS, Inflater

# Of deflate: no body becomes larger than its own size times this.
_MAX_RATIO = 1032


def check_content_coding(value: str | None) -> str | None:
    """Return the coding that the Content-Encoding header `value` names, in lower case; None if the body has none.

    Raises UnsupportedContentCoding for anything else than gzip or deflate, once.
    """
    coding = (value or "").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in CODINGS:
        shown = "".join(filter(str.isprintable, coding))[:64]
        raise UnsupportedContentCoding(
            f"Unsupported Content-Encoding '{shown}': expected 'gzip', 'deflate' or no compression."
        )
    return coding


async def decode_body(body: bytes, coding: str | None, limit: int) -> bytes:
    """Return a request body without its content coding.

    Raises BodyTooLarge if it is larger than `limit` bytes then, and BadRequest if it is not in this coding.
    """
    if coding is None:
        return body
    return await offload_if_large(min(len(body) * _MAX_RATIO, limit), _inflate, body, coding, limit)


def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    inflater, parts, size = Inflater(coding), list[bytes](), 0
    try:
        for part in inflater.parts(body) if body else ():
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"The request body is too large: the maximum is {limit} bytes, decompressed.")
            parts.append(part)
    except zlib.error as error:
        raise _invalid(coding, "it is not valid") from error
    if not inflater.complete:
        raise _invalid(coding, "it is incomplete")
    return b"".join(parts)


def _invalid(coding: str, why: str) -> BadRequest:
    message = f"We could not decompress the body of your request with '{coding}': {why}."
    return BadRequest(message, code="invalid_content_encoding")
