"""Decompression of bodies, for servers that compress them unasked."""

from __future__ import annotations

import zlib

from subnet.http.response_parser import BodyReceiver, InvalidResponseError
from subnet.inflate import CODINGS, Inflater


def decoded(body: BodyReceiver, coding: str) -> BodyReceiver:
    """Return the receiver of a body with this `content-encoding`, whose decoded parts `body` gets.

    Raises InvalidResponseError for a coding other than gzip and deflate.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in CODINGS:
        raise InvalidResponseError("an unsupported content coding")
    return _DecodingReceiver(body, Inflater(coding))


class _DecodingReceiver:
    """Receiver that decompresses a body in small parts."""

    def __init__(self, body: BodyReceiver, inflater: Inflater) -> None:
        self.done = body.done
        self._body = body
        self._inflater = inflater

    def feed(self, data: bytes) -> None:
        if self.done:
            return
        try:
            for part in self._inflater.parts(data):
                self._body.feed(part)
                self.done = self._body.done
                if self.done:
                    return
        except zlib.error as error:
            raise InvalidResponseError("an invalid compressed body") from error

    def end(self) -> None:
        if self._inflater.started and not self._inflater.complete:
            raise InvalidResponseError("a truncated compressed body")
        self._body.end()
