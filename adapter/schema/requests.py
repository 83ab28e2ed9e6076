"""What POST /v1/chat/completions takes. A null is the same as an absent field."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from adapter.schema.messages import MOST_MESSAGES, Message

_Stop = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=1)]


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class ChatCompletionRequest(Struct, frozen=True, kw_only=True):
    """The parameters that are served; schema/parameters.py has the rest of OpenAI's.

    The ranges are those of OpenAI's published schema.
    """

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MOST_MESSAGES)]
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    stop: str | Annotated[list[_Stop], Meta(max_length=4)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_cache_key: str | None = None
    user: str | None = None

    @property
    def limit(self) -> int | None:
        """Of new tokens, per choice."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def key(self) -> str | None:
        """What the client says belongs together, for a policy that keeps it on one node."""
        return self.prompt_cache_key or self.user or None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)
