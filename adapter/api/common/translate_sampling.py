"""Translates what chat and text completions have in common: sampling, output format, output options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapter.api.common.formats import JsonObjectFormat, JsonSchemaFormat, StructuredOutputs, TextFormat
from adapter.api.common.sampling import SamplingRequest
from adapter.api.common.validation import invalid_combination
from adapter.generation.output_options import OutputOptions
from adapter.grammar.output_format import OutputFormat, Place
from subnet.generation import Sampling

_STRUCTURES = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def sampling(request: SamplingRequest, logprobs: int | None) -> Sampling:
    """Returns how tokens are drawn, with OpenAI's defaults; what depends on the model is completed later."""
    return Sampling(
        temperature=_or(request.temperature, 1.0),
        top_p=_or(request.top_p, 1.0),
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        typical_p=_or(request.typical_p, 1.0),
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        logit_bias=request.logit_bias or {},
        min_tokens=request.min_tokens or 0,
        seed=request.seed,
        stop_tokens=tuple(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
    )


def output_options(request: SamplingRequest, logprobs: int | None) -> OutputOptions:
    return OutputOptions(
        stops=request.stops,
        include_stop=bool(request.include_stop_str_in_output),
        logprobs=logprobs,
        token_ids=bool(request.return_token_ids),
        show_control_tokens=request.skip_special_tokens is False,
    )


def output_format(request: SamplingRequest) -> OutputFormat | None:
    """Returns `response_format`, `structured_outputs` or `guided_*` as one; None for any text. Raises BadRequest for
    two of them."""
    asked, own = request.response_format, request.structured
    if own is None:
        return _of_response_format(asked)
    if asked is not None and not isinstance(asked, TextFormat):
        name = _structure(request)
        raise invalid_combination(f"Setting 'response_format' and '{name}' at the same time is not supported.", name)
    return _of_structured(own, _structure(request))


def grammar_param(request: SamplingRequest) -> str:
    """The parameter that an answer has a grammar for: of several, the most specific one."""
    if request.structured is not None:
        return _structure(request)
    asked = request.response_format
    return "tools" if asked is None or isinstance(asked, TextFormat) else "response_format"


def _of_response_format(asked: object) -> OutputFormat | None:
    if isinstance(asked, JsonObjectFormat):
        return OutputFormat("json_object", Place("response_format", "response_format"))
    if isinstance(asked, JsonSchemaFormat):
        wanted = asked.json_schema
        place = Place("response_format.json_schema.schema", f"response_format '{wanted.name}'")
        # Strict rules are for schemas that were given.
        strict = bool(wanted.strict and wanted.schema is not None)
        return OutputFormat("json_schema", place, wanted.schema or _ANY_OBJECT, strict)
    return None


def _of_structured(own: StructuredOutputs, name: str) -> OutputFormat:
    field = next(field for field in own.__struct_fields__ if getattr(own, field) not in (None, False))
    param = name if name.startswith("guided_") else f"{name}.{field}"
    place = Place(param, param)
    if own.json is not None:
        return OutputFormat("json_schema", place, own.json)
    if own.regex is not None:
        return OutputFormat("regex", place, own.regex)
    if own.choice is not None:
        return OutputFormat("choice", place, own.choice)
    if own.grammar is not None:
        return OutputFormat("grammar", place, own.grammar)
    return OutputFormat("json_object", place)


def _structure(request: SamplingRequest) -> str:
    return next(name for name in _STRUCTURES if getattr(request, name) is not None)


def _or(value: float | None, neutral: float) -> float:
    return neutral if value is None else value
