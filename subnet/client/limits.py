"""How long a session waits, and how often it tries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from subnet.node_info import Lane
from subnet.protocols.base import NONE

if TYPE_CHECKING:
    from subnet.client.remote import Remote


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Times are in seconds.

    The first token may take `first_token` plus what the prompt explains at `prefill_rate` tokens per second; each
    later one `stall`; both may take longer while there are signs of life, up to `alive`; an attempt as a whole may take
    `attempt`, None: as long as it takes. Without any new token a session makes at most `attempts` attempts and goes on
    for at most `total`; between attempts it waits up to `backoff`, doubled each time, up to `backoff_max`. When a node
    failed and no other is there, or all are full, it waits up to `patience`.

    `chat_first_token` and `chat_stall` hold on the chat lane, where a server may think unseen; None: as elsewhere.
    """

    first_token: float = 10.0
    prefill_rate: float = 50.0
    stall: float = 5.0
    chat_first_token: float | None = None
    chat_stall: float | None = None
    alive: float = 600.0
    total: float = 60.0
    attempt: float | None = None
    attempts: int = 4
    patience: float = 10.0
    backoff: float = 0.05
    backoff_max: float = 2.0

    def on(self, remote: Remote, lane: Lane) -> Limits:
        """With what holds on that lane, and what was set for that node alone."""
        own = remote.protocol.timeouts
        if own is NONE and lane == "token":
            return self
        chat = lane == "chat"
        return msgspec.structs.replace(
            self,
            first_token=own.first_token or (chat and self.chat_first_token) or self.first_token,
            stall=own.stall or (chat and self.chat_stall) or self.stall,
            attempt=own.total or self.attempt,
        )

    def first_token_within(self, prompt_tokens: int) -> float:
        return self.first_token + prompt_tokens / self.prefill_rate
