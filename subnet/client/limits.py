"""How long a session waits, and how often it tries."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Times are in seconds.

    The first token may take `first_token` plus what the prompt explains at `prefill_rate` tokens per second; each
    later one `stall`. Without any new token a session makes at most `attempts` attempts and goes on for at most
    `total`; between attempts it waits up to `backoff`, doubled each time, up to `backoff_max`. When a node failed and
    no other is there, or all are full, it waits up to `patience`.
    """

    first_token: float = 10.0
    prefill_rate: float = 50.0
    stall: float = 5.0
    total: float = 60.0
    attempts: int = 4
    patience: float = 10.0
    backoff: float = 0.05
    backoff_max: float = 2.0

    def first_token_within(self, prompt_tokens: int) -> float:
        return self.first_token + prompt_tokens / self.prefill_rate
