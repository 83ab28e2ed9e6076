"""Recorder of what the application sends, to check it after a test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from adapter.server.protocol import HttpProtocol
from adapter.server.socket_writer import SocketWriter
from tests.checked import Checker


class Recording:
    """`protocol` is a subclass of `base` that records what it sends."""

    def __init__(self, base: type[HttpProtocol]) -> None:
        transports: list[_RecordingTransport] = []

        class Recorded(base):  # type: ignore[misc, valid-type]
            socket_writer_class = _RecordingWriter

            def connection_made(self, transport: asyncio.Transport) -> None:
                transports.append(_RecordingTransport(transport))
                super().connection_made(transports[-1])

            def on_headers_complete(self) -> None:
                super().on_headers_complete()
                # A response to HEAD has no body, whatever its headers say, so parsing it requires the request.
                self.transport.parsable = self.transport.parsable and self.parser.get_method() != b"HEAD"

        self.protocol: type[HttpProtocol] = Recorded
        self._transports = transports

    def check(self) -> None:
        """Raise if a recorded response differs from OpenAI's format."""
        for transport in self._transports:
            if transport.parsable:
                Checker().feed(bytes(transport.sent))


class _RecordingTransport:
    """Transport that records the data written to it and to its SocketWriter as `sent`. `parsable`: responses can be
    parsed without the requests.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.sent = bytearray()
        self.parsable = True
        self._transport = transport

    def write(self, data: bytes) -> None:
        self.sent += data
        self._transport.write(data)

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _RecordingWriter(SocketWriter):
    __slots__ = ("_recording",)

    def __init__(self, transport: asyncio.Transport) -> None:
        assert isinstance(transport, _RecordingTransport)
        super().__init__(transport._transport)
        self._recording = transport

    def write(self, data: bytes) -> None:
        self._recording.sent += data
        super().write(data)
