"""Timeouts and retry limits of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from subnet.node_info import Lane
from subnet.protocols.base import NO_TIMEOUTS

if TYPE_CHECKING:
    from subnet.pool.node import RemoteNode


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Timeouts in seconds, and the number of attempts.

    The first token may take `first_token_timeout` plus the time that `prefill_rate` (prompt tokens per second) allows
    for the prompt; each later one `inter_token_timeout`. Keep-alives extend both, up to `keep_alive_timeout`. A single
    attempt may take `attempt_timeout`; None: no limit. An answer may take `answer_timeout` in all, over all attempts.
    Without any new token a session makes at most `max_attempts` attempts within `retry_timeout`; between attempts it
    waits up to `backoff`, doubled each time, up to `backoff_max`. It makes at most `max_total_attempts` in all.
    `failover_timeout` bounds the time from the first failure to the next new token. While every node is full or
    unreachable, it waits up to `queue_timeout` for capacity; if a fallback can be asked instead, only for a node that
    announces a wait of at most `max_retry_after`.

    `chat_first_token_timeout` and `chat_inter_token_timeout` replace the first two on the chat lane, where a server may
    reason without sending anything; None: the same as on the token lane.
    """

    first_token_timeout: float = 10.0
    prefill_rate: float = 50.0
    inter_token_timeout: float = 5.0
    chat_first_token_timeout: float | None = None
    chat_inter_token_timeout: float | None = None
    keep_alive_timeout: float = 600.0
    retry_timeout: float = 60.0
    attempt_timeout: float | None = None
    answer_timeout: float = 86_400.0
    max_attempts: int = 4
    max_total_attempts: int = 16
    failover_timeout: float = 45.0
    max_retry_after: float = 3.0
    queue_timeout: float = 10.0
    backoff: float = 0.05
    backoff_max: float = 2.0

    def for_node(self, remote: RemoteNode, lane: Lane) -> Limits:
        """Return the limits on one lane of one node, whose own timeouts take precedence."""
        own = remote.protocol.timeouts
        if own is NO_TIMEOUTS and lane == "token":
            return self
        chat = lane == "chat"
        return msgspec.structs.replace(
            self,
            first_token_timeout=own.first_token or (chat and self.chat_first_token_timeout) or self.first_token_timeout,
            inter_token_timeout=own.inter_token or (chat and self.chat_inter_token_timeout) or self.inter_token_timeout,
            attempt_timeout=own.attempt or self.attempt_timeout,
        )

    def first_token_timeout_for(self, prompt_tokens: int) -> float:
        """Return the seconds to the first token after a prompt of that length."""
        return self.first_token_timeout + prompt_tokens / self.prefill_rate
