"""Request ids, as in the header `x-request-id`."""

from __future__ import annotations

import re
from contextvars import ContextVar
from random import getrandbits

current_request: ContextVar[str] = ContextVar("current_request", default="-")
_SAFE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id(given: str | None) -> str:
    """Return the client's id if it is safe in headers and logs, or a new one."""
    return given if given is not None and _SAFE.fullmatch(given) else f"req_{getrandbits(128):032x}"
