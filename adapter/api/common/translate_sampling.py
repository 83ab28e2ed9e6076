"""Translates the parameters that chat and text completions share: sampling, output format, output options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapter.api.common.formats import JsonObjectFormat, JsonSchemaFormat, StructuredOutputs, TextFormat
from adapter.api.common.sampling import SamplingRequest
from adapter.api.common.validation import STRUCTURED_PARAMS, invalid_combination
from adapter.generation.output_options import OutputOptions
from adapter.grammar.output_format import OutputFormat, SchemaLocation
from subnet.generation import Sampling

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def sampling(request: SamplingRequest, logprobs: int | None) -> Sampling:
    """Return the sampling parameters, with OpenAI's defaults; `logprobs` is the number of logprobs (None: no logprobs).

    What depends on the model is added later.
    """
    return Sampling(
        temperature=_value_or(request.temperature, 1.0),
        top_p=_value_or(request.top_p, 1.0),
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        typical_p=_value_or(request.typical_p, 1.0),
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        repetition_penalty=_value_or(request.repetition_penalty, 1.0),
        logit_bias=request.logit_bias or {},
        min_tokens=request.min_tokens or 0,
        seed=request.seed,
        stop_tokens=tuple(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
    )


def output_options(request: SamplingRequest, logprobs: int | None) -> OutputOptions:
    """Return the options of the output; `logprobs` is as for `sampling`."""
    return OutputOptions(
        stops=request.stops,
        include_stop=bool(request.include_stop_str_in_output),
        logprobs=logprobs,
        token_ids=bool(request.return_token_ids),
        show_control_tokens=request.skip_special_tokens is False,
    )


def output_format(request: SamplingRequest) -> OutputFormat | None:
    """Return the format set by `response_format`, `structured_outputs` or `guided_*`; None if any text is allowed.

    Raises BadRequest if two of them are set.
    """
    response_format, structured = request.response_format, request.structured
    if structured is None:
        return _from_response_format(response_format)
    if response_format is not None and not isinstance(response_format, TextFormat):
        name = _structured_param(request)
        raise invalid_combination(f"Setting 'response_format' and '{name}' at the same time is not supported.", name)
    return _from_structured_outputs(structured, _structured_param(request))


def grammar_param(request: SamplingRequest) -> str:
    """Return the name of the parameter that requires a grammar; if several do, the most specific one."""
    if request.structured is not None:
        return _structured_param(request)
    response_format = request.response_format
    return "tools" if response_format is None or isinstance(response_format, TextFormat) else "response_format"


def _from_response_format(response_format: object) -> OutputFormat | None:
    if isinstance(response_format, JsonObjectFormat):
        return OutputFormat("json_object", SchemaLocation("response_format", "response_format"))
    if isinstance(response_format, JsonSchemaFormat):
        json_schema = response_format.json_schema
        location = SchemaLocation("response_format.json_schema.schema", f"response_format '{json_schema.name}'")
        # OpenAI's strict rules apply only to a schema that the client sent, not to the default one.
        is_strict = json_schema.strict and json_schema.schema is not None
        schema = json_schema.schema or _ANY_OBJECT
        return OutputFormat("json_schema", location, schema, "strict" if is_strict else "relaxed")
    return None


def _from_structured_outputs(structured: StructuredOutputs, name: str) -> OutputFormat:
    field = next(field for field in structured.__struct_fields__ if getattr(structured, field) not in (None, False))
    param = name if name.startswith("guided_") else f"{name}.{field}"
    location = SchemaLocation(param, param)
    if structured.json is not None:
        return OutputFormat("json_schema", location, structured.json)
    if structured.regex is not None:
        return OutputFormat("regex", location, structured.regex)
    if structured.choice is not None:
        return OutputFormat("choice", location, structured.choice)
    if structured.grammar is not None:
        return OutputFormat("grammar", location, structured.grammar)
    return OutputFormat("json_object", location)


def _structured_param(request: SamplingRequest) -> str:
    return next(name for name in STRUCTURED_PARAMS if getattr(request, name) is not None)


def _value_or(value: float | None, neutral: float) -> float:
    return neutral if value is None else value
