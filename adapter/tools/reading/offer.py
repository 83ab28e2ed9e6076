"""Tools that are offered to the model in a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Tool(msgspec.Struct, frozen=True):
    """Function that the model may call.

    `parameters` is the JSON schema of its arguments, or None if it takes none. `strict`: arguments must fit the schema.
    `param` is the location of the schema in the client's request, such as `tools[0].function.parameters`.
    """

    name: str
    parameters: Mapping[str, Any] | None
    strict: bool
    param: str


class Offer(msgspec.Struct, frozen=True):
    """Tools that the model may call in an answer. `forced`: it must call one. `parallel`: it may call several."""

    tools: tuple[Tool, ...] = ()
    forced: bool = False
    parallel: bool = True

    @property
    def schemas(self) -> dict[str, Mapping[str, Any] | None]:
        """JSON schemas of the arguments, by the names of the tools."""
        return {tool.name: tool.parameters for tool in self.tools}

    def with_schemas(self, schemas: Mapping[str, Mapping[str, Any]]) -> Offer:
        """Return the offer with other schemas for some tools, by their names."""
        tools = [
            msgspec.structs.replace(tool, parameters=schemas[tool.name]) if tool.name in schemas else tool
            for tool in self.tools
        ]
        return msgspec.structs.replace(self, tools=tuple(tools))
