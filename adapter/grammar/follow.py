"""Preparation of the schemas of a request: those that must be followed are checked, others relaxed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from adapter.grammar import json_schema, relaxed_schema
from adapter.grammar.json_schema import encode_schema, find_issue
from adapter.grammar.output_format import CompiledFormat, SchemaLocation, SchemaPolicy, json_format
from adapter.grammar.relaxed_schema import relax
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large
from adapter.tools.grammar.lark import as_object
from adapter.tools.reading.offer import Offer, Tool

_MAX_INLINE = 2048
"""Total length, in characters, from which schemas are checked in a thread: some take ten microseconds per character."""


class Followed(msgspec.Struct, frozen=True):
    """Tools and output format of a request, with schemas that a grammar can follow. `relaxed` are the places of what
    was left out for it, as parameters.
    """

    offer: Offer
    format: CompiledFormat | None
    relaxed: tuple[str, ...] = ()


class _Schema(msgspec.Struct, frozen=True):
    """Schema with its location in the request. `text` is the schema as JSON."""

    schema: Mapping[str, Any]
    location: SchemaLocation
    policy: SchemaPolicy
    text: str

    @property
    def is_cached(self) -> bool:
        if self.policy == "relaxed":
            return relaxed_schema.is_cached(self.text)
        return json_schema.is_cached(self.text, self.policy == "strict")

    def follow(self, relaxed: list[str]) -> Mapping[str, Any]:
        """Return the schema for the grammar, and add to `relaxed` what it leaves out. Raises BadRequest."""
        if self.policy == "relaxed":
            found = relax(self.schema, self.text)
            relaxed += [self.location.place(path) for path in found.dropped]
            return found.schema
        if issue := find_issue(self.schema, self.text, self.policy == "strict"):
            raise self.location.schema_error(issue.path, issue.reason)
        return self.schema


async def follow(offer: Offer, output_format: CompiledFormat | None) -> Followed:
    """Check the schemas of strict tools and of the output format, and relax those that are followed as far as possible:
    of other tools, if a call is forced. Raises BadRequest, which names the location of an issue.
    """
    schemas = {tool.name: _of_tool(tool) for tool in offer.tools if tool.parameters and (tool.strict or offer.forced)}
    content = _of_format(output_format)
    given = [*schemas.values(), *([] if content is None else [content])]
    size = sum(len(schema.text) for schema in given if not schema.is_cached)

    def work() -> Followed:
        relaxed: list[str] = []
        followed = {name: schema.follow(relaxed) for name, schema in schemas.items()}
        own = None if content is None else json_format(content.follow(relaxed), content.location)
        return Followed(offer.with_schemas(followed), own or output_format, tuple(relaxed))

    return await offload_if_large(size * OFFLOAD_THRESHOLD // _MAX_INLINE, work)


def location_of(tool: Tool) -> SchemaLocation:
    """Return the location of the schema of a tool's arguments."""
    return SchemaLocation(tool.param, f"function '{tool.name}'", "invalid_function_parameters")


def _of_tool(tool: Tool) -> _Schema:
    assert tool.parameters is not None
    schema = tool.parameters if tool.strict else as_object(tool.parameters)
    return _Schema(schema, location_of(tool), "strict" if tool.strict else "relaxed", encode_schema(schema))


def _of_format(output_format: CompiledFormat | None) -> _Schema | None:
    if output_format is None or output_format.schema is None:
        return None
    text = output_format.grammar.text
    return _Schema(output_format.schema, output_format.location, output_format.policy, text)
