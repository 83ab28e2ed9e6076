"""State of the gateway process that requests can see."""

from __future__ import annotations

import msgspec


class Lifecycle(msgspec.Struct):
    """`draining`: running requests finish before the process exits, and load balancers should send no new ones."""

    draining: bool = False
