"""TCP relay between clients and a gateway that checks the gateway's responses."""

from __future__ import annotations

import socket
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Self
from urllib.parse import urlsplit

import httptools

from tests.checked import Checker

_SIZE = 1 << 16


class Relay:
    """Relay from its own `url` to the gateway at `target`. `answers` counts the checked responses."""

    def __init__(self, target: str) -> None:
        self._target = (urlsplit(target).hostname or "", urlsplit(target).port or 80)
        self._checkers: list[Checker] = []
        self._faults: list[Exception] = []
        self._server = ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def answers(self) -> int:
        return sum(checker.answers for checker in self._checkers)

    def check(self) -> None:
        """Raise the first error found in a response since the last call."""
        faults, self._faults = self._faults, []
        if faults:
            raise faults[0]

    def _handler(self) -> type[BaseRequestHandler]:
        class Handler(BaseRequestHandler):
            def handle(handler) -> None:  # noqa: N805
                with suppress(OSError), socket.create_connection(self._target) as server:
                    Thread(target=_pass_on, args=(handler.request, server), daemon=True).start()
                    self._pass_back(server, handler.request)

        return Handler

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        checker = Checker()
        self._checkers.append(checker)
        while data := server.recv(_SIZE):
            # Check before passing on, so that a response that a client has was checked.
            try:
                checker.feed(data)
            except httptools.HttpParserError as fault:
                self._faults.append(fault)
                return
            client.sendall(data)


def _pass_on(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError):
        while data := client.recv(_SIZE):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
