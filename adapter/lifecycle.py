"""State of the gateway process that requests can see."""

from __future__ import annotations

import msgspec


class Lifecycle(msgspec.Struct):
    """Lifecycle of the process.

    While it is `draining`, running requests finish before it exits, and load balancers should send no new ones.
    """

    draining: bool = False
