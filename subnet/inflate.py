"""Decompression of the content codings gzip and deflate."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

CODINGS = ("gzip", "x-gzip", "deflate")
"""Names of the codings that an Inflater knows, in lower case."""

# First byte of each member of gzip data, of which there may be several (RFC 1952, section 2.2).
_GZIP_MAGIC = 0x1F
# Maximum of one decompressed part, in bytes: a small body can become a very large one.
_MAX_PART = 64 << 10
# Bytes to decompress at once: the rest is copied after each member, and a member may be as small as 20 bytes.
_SLICE = 4096


class Inflater:
    """Decompressor of one body. `complete` is True at the end of the compressed data; what follows is ignored.

    Compressed data in gzip may have several members, one after the other.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._decompressor: zlib._Decompress | None = None
        self._ignores_rest = False

    @property
    def started(self) -> bool:
        return self._decompressor is not None

    @property
    def complete(self) -> bool:
        return self._decompressor is not None and self._decompressor.eof

    def parts(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed parts of `data`, of at most 64 KiB each. Raises zlib.error for invalid data."""
        for start in range(0, len(data), _SLICE):
            yield from self._parts(data[start : start + _SLICE])

    def _parts(self, data: bytes) -> Iterator[bytes]:
        inflate = self._decompressor = self._decompressor or zlib.decompressobj(self._window(data))
        while data and not self._ignores_rest:
            if inflate.eof:
                if self._coding == "deflate" or data[0] != _GZIP_MAGIC:
                    self._ignores_rest = True
                    return
                inflate = self._decompressor = zlib.decompressobj(self._window(data))
            part = inflate.decompress(data, _MAX_PART)
            data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            if part:
                yield part

    def _window(self, data: bytes) -> int:
        """Return zlib's parameter for the format. Some senders use `deflate` without zlib's header."""
        if self._coding != "deflate":
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS
