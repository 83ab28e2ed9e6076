"""Thread with the event loop in which proxies run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Thread
from typing import TypeVar

from tests.faults.proxy import Proxy, Victim
from tests.faults.sockets import reset
from tests.faults.trap import Trap

T = TypeVar("T")


class Wires:
    """Thread with an event loop in which proxies run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._opened: list[tuple[Proxy, asyncio.Server]] = []

    def proxy(self, trap: Trap, node: Victim) -> Proxy:
        proxy = Proxy(trap, node)
        self._opened.append((proxy, self._call(proxy.open())))
        return proxy

    def heal(self) -> None:
        for proxy, _ in self._opened:
            self._call(proxy.heal())

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for proxy, server in self._opened:
            server.close()
            for link in list(proxy.links):
                link.cut(reset)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def _call(self, coroutine: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)
