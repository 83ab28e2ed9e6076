"""State of the gateway process that requests can see."""

from __future__ import annotations

from time import time

import msgspec


class Lifecycle(msgspec.Struct):
    """Lifecycle of the process.

    While it is `draining`, running requests finish before it exits, and load balancers should send no new ones.
    `started` is when the gateway started, the same in all of its processes (Unix time in seconds).
    """

    draining: bool = False
    started: int = msgspec.field(default_factory=lambda: int(time()))
