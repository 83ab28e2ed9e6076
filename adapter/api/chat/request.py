"""The part of a chat completion request that the gateway needs whatever model answers it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from adapter.api.common.sampling import Envelope
from adapter.api.conversation.message_types import MAX_MESSAGES


class ChatEnvelope(Envelope, frozen=True, kw_only=True):
    """A chat completion request as far as the gateway itself needs it."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)]
    functions: Any = None
