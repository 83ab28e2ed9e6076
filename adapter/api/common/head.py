"""What is the same in every chunk of an answer."""

from __future__ import annotations

from random import getrandbits
from time import time

import msgspec


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Id, time, model and fingerprint of an answer."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, model: str, fingerprint: str, prefix: str = "chatcmpl-") -> Head:
        return cls(
            id=f"{prefix}{getrandbits(112):028x}", created=int(time()), model=model, system_fingerprint=fingerprint
        )
