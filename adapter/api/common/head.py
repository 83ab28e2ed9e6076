"""Fields that are the same in every chunk of an answer."""

from __future__ import annotations

from random import getrandbits
from time import time

import msgspec


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Id, creation time (Unix time in seconds), model and system fingerprint of an answer."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, model: str, fingerprint: str, prefix: str = "chatcmpl-") -> Head:
        """Return the head of an answer that starts now, with a random id that starts with `prefix`."""
        return cls(
            id=f"{prefix}{getrandbits(112):028x}", created=int(time()), model=model, system_fingerprint=fingerprint
        )
