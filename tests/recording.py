"""What the application says on its connections, kept beside the sockets it says it on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from adapter.server.protocol import HttpProtocol
from adapter.server.response_writer import Outlet
from tests.checked import Checker


class Recording:
    """`protocol` is one that keeps what it writes."""

    def __init__(self, base: type[HttpProtocol]) -> None:
        kept: list[_Copying] = []

        class Kept(base):  # type: ignore[misc, valid-type]
            outlets = _CopyingOutlet

            def connection_made(self, transport: asyncio.Transport) -> None:
                kept.append(_Copying(transport))
                super().connection_made(kept[-1])

            def on_headers_complete(self) -> None:
                super().on_headers_complete()
                # What answers it has no body, whatever its headers say: who reads must know the question.
                self.transport.known = self.transport.known and self.parser.get_method() != b"HEAD"

        self.protocol: type[HttpProtocol] = Kept
        self._kept = kept

    def check(self) -> None:
        """Raises where an answer is not as OpenAI's are."""
        for transport in self._kept:
            if transport.known:
                Checker().feed(bytes(transport.said))


class _Copying:
    """A transport; `said` is what was written to it and to its outlet, `known` whether that can be read without the
    questions.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.said = bytearray()
        self.known = True
        self.itself = transport

    def write(self, data: bytes) -> None:
        self.said += data
        self.itself.write(data)

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.itself, name)


class _CopyingOutlet(Outlet):
    __slots__ = ("_copying",)

    def __init__(self, transport: asyncio.Transport) -> None:
        assert isinstance(transport, _Copying)
        super().__init__(transport.itself)
        self._copying = transport

    def write(self, data: bytes) -> None:
        self._copying.said += data
        super().write(data)
