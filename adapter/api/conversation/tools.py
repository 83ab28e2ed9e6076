"""Types of `tools` and `tool_choice`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from adapter.api.common.formats import NAME

MAX_TOOLS = 128
# Clients of MCP put a server's name before that of a tool. OpenAI takes MAX_OPENAI_NAME, most other servers any.
MAX_NAME, MAX_OPENAI_NAME = 256, 64

_Name = Annotated[str, Meta(pattern=NAME, max_length=MAX_NAME)]


class FunctionDefinition(Struct, frozen=True, kw_only=True):
    """A function that the model may call.

    `parameters` is a JSON schema; without it, the function has no parameters. `strict` requires that the arguments
    match it.
    """

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, frozen=True, tag_field="type", tag="function"):
    function: FunctionDefinition


Tools = Annotated[list[Tool], Meta(max_length=MAX_TOOLS)]


class FunctionName(Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class NamedTool(Struct, frozen=True, tag_field="type", tag="function", forbid_unknown_fields=True):
    """Tool choice: the model must call this function, once."""

    function: FunctionName


class AllowedTools(Struct, frozen=True, forbid_unknown_fields=True):
    """Subset of the tools. `mode` auto: the model may call any of them or none; required: at least one of them."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Meta(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(Struct, frozen=True, tag_field="type", tag="allowed_tools", forbid_unknown_fields=True):
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice
