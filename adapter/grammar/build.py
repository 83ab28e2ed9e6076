"""Builds the grammar that an answer must fit, from tools and an output format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from adapter.errors import BadRequest
from adapter.grammar.json_schema import fault, is_checked, written
from adapter.grammar.output_format import Form, OutputFormat, Place, compiled
from adapter.offload import OFFLOAD_THRESHOLD, offload_if_large
from adapter.tools import ModelFormat, UnsupportedSchema
from adapter.tools.grammar.lark import as_object
from adapter.tools.reading.offer import Offer, Tool
from subnet.generation import Grammar

_ANY: Mapping[str, Any] = {"type": "object"}

_SLOW = 2048
"""Characters of schemas from which on they are checked in a thread: some take ten microseconds each."""


class _Checked(msgspec.Struct, frozen=True):
    """A schema to be checked, and where the request has it."""

    schema: Mapping[str, Any]
    place: Place
    strict: bool
    text: str


async def structure(
    offer: Offer,
    output_format: OutputFormat | None,
    kind: ModelFormat,
    special: Mapping[str, int],
    opened: bool = False,
) -> Grammar | None:
    """The grammar that the answer must fit, or None where it may be anything.

    `kind` is how the model writes calls and reasoning, `special` its control tokens (text -> id), `opened` whether
    the answer begins inside reasoning. With tools that may be called, an answer is either calls or fits the format that
    is asked for, or is any text where none is; calls fit the tools that are strict, and are one at most if the request
    says so. Raises BadRequest for what cannot be combined, and for a schema that cannot be followed, naming the place
    in it. Schemas of tools that nothing enforces are not checked.
    """
    form = None if output_format is None else compiled(output_format)
    if form is None and not offer.tools:
        return None
    if form is not None and offer.forced:
        message = f"A 'tool_choice' that forces a tool call cannot be combined with '{form.place.param}'."
        raise _clash(message, form.place.param)
    await _check([*_of_tools(offer), *_of_form(form)])
    try:
        if form is not None:
            return _answer(form, offer, kind, special, opened)
        return _lark(_calls(offer, kind, special, opened))
    except UnsupportedSchema as error:
        name, *path = error.path
        tool = next(tool for tool in offer.tools if tool.name == name)
        raise _place(tool).refusal(path, error.reason) from error


async def plain_structure(wanted: OutputFormat | None) -> Grammar | None:
    """The same for a plain prompt, without tools and reasoning."""
    if wanted is None:
        return None
    form = compiled(wanted)
    await _check([*_of_form(form)])
    return form.grammar


def _calls(offer: Offer, kind: ModelFormat, special: Mapping[str, int], opened: bool) -> str | None:
    tools = parameters(offer)
    if offer.forced:
        return kind.call_grammar(tools, offer.parallel, special, opened)
    bound = not offer.parallel or any(tool.strict for tool in offer.tools)
    return kind.free_grammar(tools, offer.parallel, special, opened) if tools and bound else None


def _answer(form: Form, offer: Offer, kind: ModelFormat, special: Mapping[str, int], opened: bool) -> Grammar:
    """The format, after reasoning where the model reasons, or calls where it may call."""
    body = form.body
    whole = kind.content_grammar(body or '""', special, opened, parameters(offer), offer.parallel)
    if whole is not None and body is None:
        raise _clash(f"'{form.place.param}' cannot be combined with tools or reasoning.", form.place.param)
    return _lark(whole) or form.grammar


def _lark(text: str | None) -> Grammar | None:
    return None if text is None else Grammar("lark", text)


def parameters(offer: Offer) -> dict[str, Mapping[str, Any] | None]:
    """The schemas of the tools that may be called. Those that nothing enforces accept any object."""
    return {tool.name: tool.parameters if offer.forced or tool.strict else _ANY for tool in offer.tools}


def _place(tool: Tool) -> Place:
    return Place(tool.param, f"function '{tool.name}'", "invalid_function_parameters")


def _of_tools(offer: Offer) -> Iterator[_Checked]:
    for tool in offer.tools:
        if tool.parameters is not None and (tool.strict or offer.forced):
            schema = tool.parameters if tool.strict else as_object(tool.parameters)
            yield _Checked(schema, _place(tool), tool.strict, written(schema))


def _of_form(form: Form | None) -> Iterator[_Checked]:
    if form is not None and form.schema is not None:
        yield _Checked(form.schema, form.place, form.strict, form.grammar.text)


async def _check(schemas: Sequence[_Checked]) -> None:
    new = sum(len(one.text) for one in schemas if not is_checked(one.text, one.strict))
    await offload_if_large(new * OFFLOAD_THRESHOLD // _SLOW, _refuse, schemas)


def _refuse(schemas: Sequence[_Checked]) -> None:
    for one in schemas:
        if found := fault(one.schema, one.text, one.strict):
            raise one.place.refusal(found.path, found.reason)


def _clash(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=param, code="invalid_parameter_combination")
