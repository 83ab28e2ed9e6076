"""Request types of POST /v1/messages and its /count_tokens. A null is the same as an absent field."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from adapter.api.common.sampling import MAX_INT, Fraction, ModelName, TokenLimit
from adapter.api.common.validation_errors import Hints, one_of
from adapter.api.messages.content_types import AssistantBlocks, TextBlocks, UserBlocks

# Far more than clients need; they limit what a request costs.
MAX_MESSAGES, MAX_TOOLS, MAX_STOPS = 4096, 512, 64

_ToolName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]+(?![\s\S])", max_length=128)]
_Stop = Annotated[str, Meta(min_length=1)]

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class UserTurn(Struct, frozen=True, tag_field="role", tag="user"):
    content: str | UserBlocks


class AssistantTurn(Struct, frozen=True, tag_field="role", tag="assistant"):
    """A message of the model. If it is the last one, the answer continues it."""

    content: str | AssistantBlocks


class SystemTurn(Struct, frozen=True, tag_field="role", tag="system"):
    """Instructions in the middle of a conversation."""

    content: str | TextBlocks


Turn = UserTurn | AssistantTurn | SystemTurn


class OfferedTool(Struct, frozen=True, kw_only=True):
    """A tool that the model may call. `strict` requires that the input matches `input_schema`.

    Tools of other types than `custom` are those of Anthropic, which a model elsewhere does not know, or which run at
    Anthropic: they are left out, and named in a header.
    """

    name: _ToolName
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None

    @property
    def is_custom(self) -> bool:
        return not self.is_left_out({"type": self.type, "input_schema": self.input_schema})

    @staticmethod
    def is_left_out(given: dict[str, Any]) -> bool:
        return given.get("type") not in (None, "custom") and given.get("input_schema") is None


class _Choice(Struct, frozen=True, kw_only=True, tag_field="type"):
    disable_parallel_tool_use: bool | None = None


class AutoChoice(_Choice, frozen=True, kw_only=True, tag="auto"):
    """The model may call tools."""


class AnyChoice(_Choice, frozen=True, kw_only=True, tag="any"):
    """The model must call a tool."""


class ToolChoice(_Choice, frozen=True, kw_only=True, tag="tool"):
    """The model must call this tool."""

    name: str


class NoChoice(_Choice, frozen=True, kw_only=True, tag="none"):
    """The model must not call a tool."""


class EnabledThinking(Struct, frozen=True, kw_only=True, tag_field="type", tag="enabled"):
    budget_tokens: Annotated[int, Meta(ge=1, le=MAX_INT)]


class DisabledThinking(Struct, frozen=True, kw_only=True, tag_field="type", tag="disabled"):
    pass


class AdaptiveThinking(Struct, frozen=True, kw_only=True, tag_field="type", tag="adaptive"):
    """The model decides whether it reasons, as it does by default."""


class ThinkingBetweenTools(Struct, frozen=True, kw_only=True, tag_field="type", tag="between_tools"):
    """As by default, too."""


class JsonFormat(Struct, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    schema: dict[str, Any]


class OutputConfig(Struct, frozen=True, kw_only=True):
    effort: Effort | None = None
    format: JsonFormat | None = None


class Metadata(Struct, frozen=True, kw_only=True):
    """`user_id` keeps a user's requests on one node, where the routing policy does."""

    user_id: str | None = None


class CountTokensRequest(Struct, frozen=True, kw_only=True):
    """A request for the number of tokens of a prompt."""

    HINTS: ClassVar[Hints] = {
        re.compile(place): hint
        for place, hint in (
            (r"^messages\[\d+\]\.role$", one_of("user", "assistant", "system")),
            (r"^tool_choice\.type$", one_of("auto", "any", "tool", "none")),
            (r"^thinking\.type$", one_of("enabled", "disabled", "adaptive")),
            (r"^output_config\.format\.type$", one_of("json_schema")),
        )
    }

    model: ModelName
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | TextBlocks | None = None
    tools: Annotated[list[OfferedTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: AutoChoice | AnyChoice | ToolChoice | NoChoice | None = None
    thinking: EnabledThinking | DisabledThinking | AdaptiveThinking | ThinkingBetweenTools | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountTokensRequest, frozen=True, kw_only=True):
    """A request for a message. Parameters that have no effect are not listed.

    At Anthropic `max_tokens` is required. Without it, the gateway's default applies.
    """

    max_tokens: TokenLimit | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_INT)] | None = None
    stop_sequences: Annotated[list[_Stop], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
