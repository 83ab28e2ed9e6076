"""Construction of the grammar that an answer must match, from tools and an output format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from adapter.errors import BadRequest
from adapter.grammar.follow import follow, location_of
from adapter.grammar.output_format import CompiledFormat, OutputFormat, compile_format
from adapter.tools import ModelFormat, UnsupportedSchema
from adapter.tools.reading.offer import Offer
from subnet.generation import Grammar

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


class AnswerGrammar(msgspec.Struct, frozen=True):
    """Grammar that an answer must match, None for any text. `relaxed` are the places in schemas, as parameters, that it
    does not follow, though the request has them; `offer` has the tools with the schemas that it does follow.
    """

    grammar: Grammar | None = None
    relaxed: tuple[str, ...] = ()
    offer: Offer = Offer()


async def build_grammar(
    offer: Offer,
    output_format: OutputFormat | None,
    model_format: ModelFormat,
    special: Mapping[str, int],
    in_reasoning: bool = False,
) -> AnswerGrammar:
    """Return the grammar that the answer must match.

    `model_format` is the format in which the model writes calls and reasoning, and `special` has the ids of its control
    tokens by text. `in_reasoning`: the answer starts within reasoning.

    If there are tools, an answer is either calls, or content that matches the output format, or any text without one.
    A forced call leaves no room for content, so that a `response_format` has no effect then. Calls fit the schemas of
    strict tools, and those of others as far as possible if a call is forced; and there is at most one call if the
    request forbids parallel calls.

    Raises BadRequest for parameters that cannot be combined, and for a schema that must be followed and is not
    supported, naming the location in it. Schemas that are not enforced are not checked.
    """
    compiled = None if output_format is None else compile_format(output_format)
    if output_format is None and not offer.tools:
        return AnswerGrammar()
    if output_format is not None and offer.forced and not output_format.is_response_format:
        param = output_format.location.param
        raise _conflict(f"A 'tool_choice' that forces a tool call cannot be combined with '{param}'.", param)
    followed = await follow(offer, compiled)
    content = None if offer.forced else followed.format
    relaxed = list(followed.relaxed)
    offer = followed.offer
    while True:
        try:
            if content is None:
                grammar = _call_grammar(offer, model_format, special, in_reasoning)
            else:
                grammar = _content_grammar(content, offer, model_format, special, in_reasoning)
            return AnswerGrammar(grammar, tuple(relaxed), offer)
        except UnsupportedSchema as error:
            offer = _without_cause(offer, error, relaxed)


async def build_plain_grammar(output_format: OutputFormat | None) -> AnswerGrammar:
    """Return the grammar for a plain prompt, without tools and reasoning. Raises as `build_grammar` does."""
    if output_format is None:
        return AnswerGrammar()
    followed = await follow(Offer(), compile_format(output_format))
    assert followed.format is not None
    return AnswerGrammar(followed.format.grammar, followed.relaxed)


def _call_grammar(
    offer: Offer, model_format: ModelFormat, special: Mapping[str, int], in_reasoning: bool
) -> Grammar | None:
    schemas = enforced_schemas(offer)
    if offer.forced:
        return _lark(model_format.call_grammar(schemas, offer.parallel, special, in_reasoning))
    is_restricted = not offer.parallel or any(tool.strict for tool in offer.tools)
    if not schemas or not is_restricted:
        return None
    return _lark(model_format.free_grammar(schemas, offer.parallel, special, in_reasoning))


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


def _without_cause(offer: Offer, error: UnsupportedSchema, relaxed: list[str]) -> Offer:
    """Return the offer without what the model's format cannot enforce, and add it to `relaxed`.

    Raises BadRequest if it is part of a strict tool.
    """
    name, *path = error.path
    tool = next(tool for tool in offer.tools if tool.name == name)
    location = location_of(tool)
    if tool.strict:
        raise location.schema_error(path, error.reason) from error
    relaxed.append(location.place(path))
    return offer.with_schemas({name: _without(tool.parameters or {}, path)})


def _without(schema: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """Return a schema of arguments without the keyword at `path`: an argument and a keyword of it. If there is no such
    keyword, it allows any argument there, or any arguments at all.
    """
    properties = schema.get("properties")
    argument = properties.get(path[0]) if path and isinstance(properties, Mapping) else None
    if not isinstance(properties, Mapping) or not isinstance(argument, Mapping):
        return _ANY_OBJECT
    kept: Any = {key: value for key, value in argument.items() if key != path[-1]}
    return {**schema, "properties": {**properties, path[0]: kept if len(kept) < len(argument) else True}}


def _conflict(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=param, code="invalid_parameter_combination")
