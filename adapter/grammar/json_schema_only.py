"""Grammars for engines that support JSON schemas as grammars, but no Lark grammars, as vLLM and SGLang.

For these, a forced call is written as `{"name": ..., "arguments": {...}}`, whatever the model's own format is, and an
answer with an output format has no reasoning before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from adapter.grammar.build import AnswerGrammar, build_grammar, enforced_schemas
from adapter.grammar.json_schema import encode_schema
from adapter.grammar.output_format import OutputFormat
from adapter.tools import ModelFormat
from adapter.tools.formats.json_calls import JsonCalls
from adapter.tools.formats.json_families import LLAMA3_JSON
from adapter.tools.grammar.lark import as_object
from adapter.tools.reading.offer import Offer
from subnet.generation import Grammar
from subnet.node_info import GrammarKind

_JSON_CALL_FORMAT = ModelFormat(JsonCalls(LLAMA3_JSON), None)
_CONTENT_ONLY_FORMAT = ModelFormat(None, None)

Tools = Mapping[str, Mapping[str, Any] | None]


async def build_supported_grammar(
    offer: Offer,
    output_format: OutputFormat | None,
    model_format: ModelFormat,
    special: Mapping[str, int],
    in_reasoning: bool,
    supported_kinds: Callable[[], Sequence[Collection[GrammarKind]]],
) -> tuple[ModelFormat, AnswerGrammar]:
    """Return the format by which the answer must be parsed, and the grammar that it must match.

    These are `model_format` and the result of `build_grammar`, unless the nodes support JSON schemas but not Lark
    grammars. `supported_kinds` returns the kinds of grammars that all nodes of the model support, then those that any
    supports: a grammar that all support is preferred. Raises as `build_grammar` does.
    """
    needs_grammar = offer.tools or output_format is not None
    if needs_grammar and _has_only_json_schemas(supported_kinds()):
        if offer.forced:
            built = await build_grammar(offer, output_format, _JSON_CALL_FORMAT, special)
            schema = encode_schema(_call_schema(enforced_schemas(built.offer)))
            return _JSON_CALL_FORMAT, msgspec.structs.replace(built, grammar=Grammar("json_schema", schema))
        if output_format is not None and not offer.tools:
            grammar = await build_grammar(offer, output_format, _CONTENT_ONLY_FORMAT, special)
            return _CONTENT_ONLY_FORMAT, grammar
    return model_format, await build_grammar(offer, output_format, model_format, special, in_reasoning)


def _has_only_json_schemas(supported: Sequence[Collection[GrammarKind]]) -> bool:
    """Return whether the first of `supported` that has either has JSON schemas and no Lark grammars."""
    kinds = next((each for each in supported if "lark" in each or "json_schema" in each), ())
    return "json_schema" in kinds and "lark" not in kinds


def _call_schema(tools: Tools) -> Mapping[str, Any]:
    """Return a schema of one call to one of `tools`."""
    if len(tools) == 1:
        ((name, schema),) = tools.items()
        return _tool_schema(name, schema, "#/properties/arguments")
    calls = [
        _tool_schema(name, schema, f"#/anyOf/{index}/properties/arguments")
        for index, (name, schema) in enumerate(tools.items())
    ]
    return {"anyOf": calls}


def _tool_schema(name: str, schema: Mapping[str, Any] | None, pointer: str) -> Mapping[str, Any]:
    """Return a schema of a call to the tool `name`, whose arguments have the JSON pointer `pointer` in the result."""
    properties = {"name": {"const": name}, "arguments": rebase_references(as_object(schema), pointer)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def rebase_references(schema: Any, pointer: str) -> Any:
    """Return a copy of `schema` to be embedded in a larger schema at the JSON pointer `pointer`, with references
    (`$ref`) adapted to it.
    """
    if isinstance(schema, Mapping):
        result = {key: rebase_references(value, pointer) for key, value in schema.items()}
        reference = result.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            result["$ref"] = pointer + reference[1:]
        return result
    if isinstance(schema, list | tuple):
        return [rebase_references(item, pointer) for item in schema]
    return schema
