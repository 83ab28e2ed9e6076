"""The functions a model may call, and which of them it must."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from adapter.api.common.formats import Name

MAX_TOOLS = 128


class FunctionDefinition(Struct, frozen=True, kw_only=True):
    """`parameters` is a JSON schema; without one the function takes none. `strict` asks that the arguments fit it."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, frozen=True, tag_field="type", tag="function"):
    function: FunctionDefinition


Tools = Annotated[list[Tool], Meta(max_length=MAX_TOOLS)]


class FunctionName(Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class NamedTool(Struct, frozen=True, tag_field="type", tag="function", forbid_unknown_fields=True):
    """As a choice: this function, once."""

    function: FunctionName


class AllowedTools(Struct, frozen=True, forbid_unknown_fields=True):
    """`mode` auto: any of these or none; required: one or more of these."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Meta(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(Struct, frozen=True, tag_field="type", tag="allowed_tools", forbid_unknown_fields=True):
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice
