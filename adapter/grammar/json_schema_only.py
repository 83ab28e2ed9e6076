"""For engines that keep to JSON schemas, and to no larger grammar: a form of its own, with nothing around it.

A call that is asked for is written as `{"name": ..., "arguments": {...}}`, whatever the model's own way is, and a form
has no reasoning before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from adapter.grammar.build import parameters, structure
from adapter.grammar.json_schema import written
from adapter.grammar.output_format import OutputFormat
from adapter.tools import ModelFormat
from adapter.tools.formats.llama3_json import Llama3Json
from adapter.tools.grammar.lark import as_object
from adapter.tools.reading.offer import Offer
from subnet.generation import Grammar
from subnet.node_info import GrammarKind

_CALLS = ModelFormat(Llama3Json(), None)
_FORM = ModelFormat(None, None)

Tools = Mapping[str, Mapping[str, Any] | None]


async def structured(
    offer: Offer,
    output_format: OutputFormat | None,
    kind: ModelFormat,
    special: Mapping[str, int],
    opened: bool,
    engines: Callable[[], Collection[GrammarKind]],
) -> tuple[ModelFormat, Grammar | None]:
    """Returns how the answer is to be read, and the grammar that it must fit: as `structure` has them, where all
    `engines` of the model support such grammars. Raises as that does.
    """
    wanted = offer.tools or output_format is not None
    if wanted and "lark" not in (kinds := engines()) and "json_schema" in kinds:
        if offer.forced:
            await structure(offer, output_format, kind, special, opened)
            return _CALLS, Grammar("json_schema", written(_call(parameters(offer))))
        if output_format is not None and not offer.tools:
            return _FORM, await structure(offer, output_format, _FORM, special)
    return kind, await structure(offer, output_format, kind, special, opened)


def _call(tools: Tools) -> Mapping[str, Any]:
    """A schema of one call to one of `tools`."""
    if len(tools) == 1:
        ((name, schema),) = tools.items()
        return _of(name, schema, "#/properties/arguments")
    calls = [_of(name, schema, f"#/anyOf/{at}/properties/arguments") for at, (name, schema) in enumerate(tools.items())]
    return {"anyOf": calls}


def _of(name: str, schema: Mapping[str, Any] | None, place: str) -> Mapping[str, Any]:
    properties = {"name": {"const": name}, "arguments": moved(as_object(schema), place)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def moved(schema: Any, place: str) -> Any:
    """`schema` as it is written at `place` of a larger one: what it refers to has moved with it."""
    if isinstance(schema, Mapping):
        found = {key: moved(value, place) for key, value in schema.items()}
        reference = found.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            found["$ref"] = place + reference[1:]
        return found
    if isinstance(schema, list | tuple):
        return [moved(one, place) for one in schema]
    return schema
