"""Names of requests: what `x-request-id` carries."""

from __future__ import annotations

import re
from contextvars import ContextVar
from random import getrandbits

current_request: ContextVar[str] = ContextVar("current_request", default="-")
_SANE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id(given: str | None) -> str:
    """The client's own id where it is safe to repeat in headers and logs, else a new one."""
    return given if given is not None and _SANE.fullmatch(given) else f"req_{getrandbits(128):032x}"
