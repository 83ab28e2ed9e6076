"""Whether the gateway is about to end."""

from __future__ import annotations

import msgspec


class Life(msgspec.Struct):
    """`leaving`: told to end; running answers finish, and load balancers shall look elsewhere."""

    leaving: bool = False
