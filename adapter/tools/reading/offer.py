"""The tools that a model may call in an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Tool(msgspec.Struct, frozen=True):
    """A function that may be called.

    `parameters` is the JSON schema of its arguments, None: it has none. `strict`: arguments must fit the schema.
    `param` is the place of the schema in the client's request.
    """

    name: str
    parameters: Mapping[str, Any] | None
    strict: bool
    param: str


class Offer(msgspec.Struct, frozen=True):
    """The tools of one request. `forced`: the answer must be a call; `parallel`: it may have several calls."""

    tools: tuple[Tool, ...] = ()
    forced: bool = False
    parallel: bool = True

    @property
    def schemas(self) -> dict[str, Mapping[str, Any] | None]:
        """The schemas of arguments, by name."""
        return {tool.name: tool.parameters for tool in self.tools}
