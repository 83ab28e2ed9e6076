"""Decompression of bodies, for servers that compress them unasked."""

from __future__ import annotations

import zlib

from subnet.http.response_parser import BodyReceiver, InvalidResponseError

# Maximum of one decompressed part, in bytes: a small body can become a very large one.
_MAX_PART = 64 << 10
_GZIP = ("gzip", "x-gzip")


def decoded(body: BodyReceiver, coding: str) -> BodyReceiver:
    """Return the receiver of a body with this `content-encoding`, whose decoded parts `body` gets.

    Raises InvalidResponseError for a coding other than gzip and deflate.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in (*_GZIP, "deflate"):
        raise InvalidResponseError("an unsupported content coding")
    return _Inflater(body, coding)


class _Inflater:
    """Receiver that decompresses a body in small parts."""

    def __init__(self, body: BodyReceiver, coding: str) -> None:
        self.done = body.done
        self._body = body
        self._coding = coding
        self._decompressor: zlib._Decompress | None = None

    def feed(self, data: bytes) -> None:
        inflate = self._decompressor = self._decompressor or zlib.decompressobj(self._window(data))
        while data and not self.done and not inflate.eof:
            try:
                part = inflate.decompress(data, _MAX_PART)
            except zlib.error as error:
                raise InvalidResponseError("an invalid compressed body") from error
            data = inflate.unconsumed_tail
            if part:
                self._body.feed(part)
                self.done = self._body.done

    def end(self) -> None:
        if self._decompressor is not None and not self._decompressor.eof:
            raise InvalidResponseError("a truncated compressed body")
        self._body.end()

    def _window(self, data: bytes) -> int:
        """Return zlib's parameter for the format. Some servers send `deflate` without zlib's header."""
        if self._coding in _GZIP:
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS
