"""Construction of the grammar that an answer must match, from tools and an output format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from adapter.errors import BadRequest
from adapter.grammar.json_schema import encode_schema, find_issue, is_cached
from adapter.grammar.output_format import CompiledFormat, OutputFormat, SchemaLocation, compile_format
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large
from adapter.tools import ModelFormat, UnsupportedSchema
from adapter.tools.grammar.lark import as_object
from adapter.tools.reading.offer import Offer, Tool
from subnet.generation import Grammar

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

_MAX_CHECKED_INLINE = 2048
"""Total length, in characters, from which schemas are checked in a thread: some take ten microseconds per character."""


class _SchemaCheck(msgspec.Struct, frozen=True):
    """Schema to be checked, and its location in the request. `text` is the schema as JSON."""

    schema: Mapping[str, Any]
    location: SchemaLocation
    strict: bool
    text: str


async def build_grammar(
    offer: Offer,
    output_format: OutputFormat | None,
    model_format: ModelFormat,
    special: Mapping[str, int],
    in_reasoning: bool = False,
) -> Grammar | None:
    """Return the grammar that the answer must match, or None if any text is allowed.

    `model_format` is the format in which the model writes calls and reasoning, and `special` has the ids of its control
    tokens by text. `in_reasoning`: the answer starts within reasoning.

    If there are tools, an answer is either calls, or content that matches the output format, or any text without one.
    Calls fit the schemas of strict tools, and there is at most one call if the request forbids parallel calls.

    Raises BadRequest for parameters that cannot be combined, and for a schema that is not supported, naming the
    location in it. Schemas that are not enforced are not checked.
    """
    compiled = None if output_format is None else compile_format(output_format)
    if compiled is None and not offer.tools:
        return None
    if compiled is not None and offer.forced:
        message = f"A 'tool_choice' that forces a tool call cannot be combined with '{compiled.location.param}'."
        raise _conflict(message, compiled.location.param)
    await _check_schemas([*_tool_checks(offer), *_format_checks(compiled)])
    try:
        if compiled is not None:
            return _content_grammar(compiled, offer, model_format, special, in_reasoning)
        return _lark(_call_grammar(offer, model_format, special, in_reasoning))
    except UnsupportedSchema as error:
        name, *path = error.path
        tool = next(tool for tool in offer.tools if tool.name == name)
        raise _location(tool).schema_error(path, error.reason) from error


async def build_plain_grammar(output_format: OutputFormat | None) -> Grammar | None:
    """Return the grammar for a plain prompt, without tools and reasoning. Raises as `build_grammar` does."""
    if output_format is None:
        return None
    compiled = compile_format(output_format)
    await _check_schemas([*_format_checks(compiled)])
    return compiled.grammar


def _call_grammar(
    offer: Offer, model_format: ModelFormat, special: Mapping[str, int], in_reasoning: bool
) -> str | None:
    schemas = enforced_schemas(offer)
    if offer.forced:
        return model_format.call_grammar(schemas, offer.parallel, special, in_reasoning)
    is_restricted = not offer.parallel or any(tool.strict for tool in offer.tools)
    if not schemas or not is_restricted:
        return None
    return model_format.free_grammar(schemas, offer.parallel, special, in_reasoning)


def _content_grammar(
    compiled: CompiledFormat,
    offer: Offer,
    model_format: ModelFormat,
    special: Mapping[str, int],
    in_reasoning: bool,
) -> Grammar:
    """Return the grammar of content in the output format, or calls if there are tools, optionally after reasoning."""
    content = compiled.expression
    schemas = enforced_schemas(offer)
    text = model_format.content_grammar(content or '""', special, in_reasoning, schemas, offer.parallel)
    if text is not None and content is None:
        param = compiled.location.param
        raise _conflict(f"'{param}' cannot be combined with tools or reasoning.", param)
    return _lark(text) or compiled.grammar


def _lark(text: str | None) -> Grammar | None:
    return None if text is None else Grammar("lark", text)


def enforced_schemas(offer: Offer) -> dict[str, Mapping[str, Any] | None]:
    """Return the schemas that arguments must fit, by the names of the tools. Tools that are neither strict nor forced
    accept any object.
    """
    return {tool.name: tool.parameters if offer.forced or tool.strict else _ANY_OBJECT for tool in offer.tools}


def _location(tool: Tool) -> SchemaLocation:
    return SchemaLocation(tool.param, f"function '{tool.name}'", "invalid_function_parameters")


def _tool_checks(offer: Offer) -> Iterator[_SchemaCheck]:
    for tool in offer.tools:
        if tool.parameters is not None and (tool.strict or offer.forced):
            schema = tool.parameters if tool.strict else as_object(tool.parameters)
            yield _SchemaCheck(schema, _location(tool), tool.strict, encode_schema(schema))


def _format_checks(compiled: CompiledFormat | None) -> Iterator[_SchemaCheck]:
    if compiled is not None and compiled.schema is not None:
        yield _SchemaCheck(compiled.schema, compiled.location, compiled.strict, compiled.grammar.text)


async def _check_schemas(checks: Sequence[_SchemaCheck]) -> None:
    size = sum(len(check.text) for check in checks if not is_cached(check.text, check.strict))
    await offload_if_large(size * OFFLOAD_THRESHOLD // _MAX_CHECKED_INLINE, _raise_first_issue, checks)


def _raise_first_issue(checks: Sequence[_SchemaCheck]) -> None:
    for check in checks:
        if issue := find_issue(check.schema, check.text, check.strict):
            raise check.location.schema_error(issue.path, issue.reason)


def _conflict(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=param, code="invalid_parameter_combination")
