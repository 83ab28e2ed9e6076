"""Repeated detection of the server at one address, across outages and replacements."""

from __future__ import annotations

from collections.abc import Callable

from subnet.authorizers import AuthorizerBase
from subnet.detect.connect import ConnectedNode, connect, describe
from subnet.detect.detect import DetectedServer, UnsupportedServer, detect
from subnet.errors import NodeError, Unauthorized
from subnet.http.node_spec import NodeSpec

Report = Callable[[str], None]
# Errors that persist until somebody intervenes, and the pause before the next attempt, in seconds.
_PERSISTENT = (Unauthorized, UnsupportedServer)
_RETRY_INTERVAL = 10.0


class Watcher:
    """Keeps a connection to whichever server is at `spec.url`.

    `node` is the server detected last, or None before the first; the watcher owns it, see aclose(). `report` receives
    one line when a server is detected, when it is replaced by another, and when the first detection fails.
    """

    def __init__(
        self, spec: NodeSpec, authorizer: AuthorizerBase | None, report: Report, clock: Callable[[], float]
    ) -> None:
        self.node: ConnectedNode | None = None
        self._spec = spec
        self._authorizer = authorizer
        self._report = report
        self._clock = clock
        self._detected: DetectedServer | None = None
        self._last_error: NodeError | None = None
        self._retry_at = 0.0
        self._last_line = ""

    @property
    def certain(self) -> bool:
        """False if the server must be detected again, because its model list failed."""
        return self._detected is None or self._detected.certain

    async def detect(self) -> None:
        """Detect the server again, and connect to it if it has changed.

        Raises NodeError. A persistent error is raised again without any request until `_RETRY_INTERVAL` is over.
        """
        if await self._is_same_subnet_node():
            return
        if self._last_error is not None and self._clock() < self._retry_at:
            raise self._last_error
        try:
            detected, node = await self._connect()
        except NodeError as error:
            persistent = isinstance(error, _PERSISTENT)
            pause = error.retry_after or (_RETRY_INTERVAL if persistent else 0.0)
            self._last_error, self._retry_at = error, self._clock() + pause
            if self.node is None or persistent:
                peer = "" if self._spec.peer in str(error) else f"{self._spec.peer}: "
                self._report_change(f"{peer}{error}; retrying until it answers")
            raise
        if self._spec.kind != "subnet":
            self._report_change(describe(self._spec, detected, node))

    async def aclose(self) -> None:
        """Close the connection. Safe to call twice."""
        node, self.node = self.node, None
        if node is not None:
            await node.protocol.aclose()

    async def _is_same_subnet_node(self) -> bool:
        """Return whether a subnet node answers again; no other server speaks its protocol."""
        if self.node is None or self._detected is None or self._detected.kind != "subnet":
            return False
        try:
            await self.node.protocol.rpc_info()
        except NodeError:
            return False
        return True

    async def _connect(self) -> tuple[DetectedServer, ConnectedNode]:
        detected = await detect(self._spec, None if self._detected is None else self._detected.kind)
        previous = self.node
        if previous is not None and detected == self._detected:
            return detected, previous
        self.node, self._detected = await connect(self._spec, detected, self._authorizer), detected
        if previous is not None:
            await previous.protocol.aclose()
        return detected, self.node

    def _report_change(self, line: str) -> None:
        if line != self._last_line:
            self._last_line = line
            self._report(line)
