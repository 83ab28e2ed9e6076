"""Schemas that need not be followed as a whole: a grammar follows what it can, and says what it leaves out."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.conversation.translate import generation_request
from adapter.config import Settings
from adapter.errors import BadRequest
from adapter.grammar.build import AnswerGrammar, build_grammar
from adapter.grammar.compile_check import compile_error
from adapter.grammar.relaxed_schema import RelaxedSchema, relax
from adapter.tools import ModelFormat, select_format
from subnet.generation import Grammar
from subnet.node_info import Capabilities
from subnet.protocols.mock import MockProtocol
from tests.adapter.grammar.test_structure import PLAIN, fits, json_schema, request, tool
from tests.fakes import ASK, gateway


def relaxed(schema: dict[str, Any]) -> RelaxedSchema:
    return relax(schema, msgspec.json.encode(schema).decode())


async def answer_grammar(kind: ModelFormat = PLAIN, **fields: Any) -> AnswerGrammar:
    wanted = generation_request(request(**fields))
    return await build_grammar(wanted.tools, wanted.output_format, kind, {})


TEXT = {"type": "string"}
LOOP = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}


@pytest.mark.parametrize(
    ("schema", "kept", "dropped"),
    [
        ({"type": "array", "uniqueItems": True}, {"type": "array"}, ["uniqueItems"]),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, {"type": "object"}, ["propertyNames"]),
        ({"type": "string", "format": "path"}, TEXT, ["format"]),
        ({"type": "string", "format": "uri-reference"}, TEXT, ["format"]),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}, []),
        (
            {"if": TEXT, "then": {"minLength": 2}, "type": ["string", "null"]},
            {"type": ["string", "null"]},
            ["if", "then"],
        ),
        ({"type": "array", "contains": TEXT, "minContains": 1}, {"type": "array"}, ["contains", "minContains"]),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, {"type": "object"}, ["dependentRequired"]),
        ({"oneOf": [TEXT, {"type": "integer"}]}, {"oneOf": [TEXT, {"type": "integer"}]}, []),
        ({"oneOf": [TEXT, {"minLength": 1}]}, {"anyOf": [TEXT, {"minLength": 1}]}, ["oneOf"]),
        ({"oneOf": [TEXT, {}], "anyOf": [TEXT]}, {"anyOf": [TEXT], "allOf": [{"anyOf": [TEXT, {}]}]}, ["oneOf"]),
        ({"type": "string", "pattern": "^(?=a)b"}, TEXT, ["pattern"]),
        ({"type": "string", "pattern": "(a)\\1"}, TEXT, ["pattern"]),
        ({"type": "string", "pattern": "^\\u00e9+$"}, {"type": "string", "pattern": "^\\x{00e9}+$"}, []),
        ({"type": "string", "pattern": "^\\\\u00e9"}, {"type": "string", "pattern": "^\\\\u00e9"}, []),
        # Nulls of Go and Java; floats of JavaScript and Lua.
        ({"type": "object", "properties": None, "required": None, "enum": None}, {"type": "object"}, []),
        ({"type": "string", "minLength": 1.0, "maxLength": 2.5}, {"type": "string", "minLength": 1}, ["maxLength"]),
        # OpenAPI 3.0.
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}, []),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, {"type": "integer", "minimum": 1}, []),
        ({"type": "integer", "minimum": "1", "multipleOf": 0}, {"type": "integer"}, ["minimum", "multipleOf"]),
        ({"type": "text"}, {}, ["type"]),
        ({"enum": []}, {}, ["enum"]),
        ({"const": None}, {"const": None}, []),
        ({"$ref": "https://example.com/a"}, {}, ["$ref"]),
        ({"$ref": "#/$defs/none"}, {}, ["$ref"]),
        ({"$ref": "#/$defs/a"}, {}, ["$ref"]),
        ({"items": "x", "anyOf": [None, "x"]}, {"anyOf": [True, True]}, ["items", "anyOf.1"]),
        # Annotations mean nothing.
        ({"type": "string", "default": 1, "title": 1, "x-a": {}, "examples": "x", "$comment": 1}, TEXT, []),
        (
            {"type": "object", "patternProperties": {"(?=a)": TEXT, "^b": TEXT}, "additionalProperties": False},
            {"type": "object", "patternProperties": {"^b": TEXT}},
            ["patternProperties.(?=a)"],
        ),
        ({"type": "string", "nullable": True, "enum": ["x"]}, {"type": ["string", "null"], "enum": ["x", None]}, []),
        ({"type": ["STRING", None]}, {"type": ["string"]}, []),
        ({"type": "OBJECT"}, {"type": "object"}, []),
        ({"type": "integer", "minimum": -(2**63)}, {"type": "integer"}, ["minimum"]),
        ({"$id": "urn:a", "items": {"$ref": "#/$defs/t"}}, {"items": {}}, ["items.$ref"]),
        ({"$ref": "#/$defs/Page%5BUser%5D"}, {"$ref": "#/$defs/Page%5BUser%5D"}, []),
        # What the compiler finds.
        ({"allOf": [TEXT, {"type": "integer"}], "description": "x"}, None, None),
    ],
)
def test_what_a_grammar_cannot_follow(schema: Any, kept: Any, dropped: list[str] | None) -> None:
    """Only what no grammar can follow is left out, at its place, wherever it is in the schema."""
    for outer, place in (
        ({"type": "object", "properties": {"p": schema}, "additionalProperties": False}, ("properties", "p")),
        ({"type": "object", "properties": {"p": {"type": "array", "items": schema}}}, ("properties", "p", "items")),
    ):
        found = relaxed({**outer, "$defs": {**LOOP, "t": TEXT, "Page[User]": TEXT}})
        assert compile_error(msgspec.json.encode(found.schema).decode()) is None
        if dropped is None:
            continue
        inner: Any = found.schema
        for step in place:
            inner = inner[step]
        assert inner == kept
        own = [path for path in found.dropped if path[: len(place)] == place]
        assert [".".join(map(str, path[len(place) :])) for path in own] == dropped


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"properties": {"a": TEXT}}, True),
        ({"properties": {}}, True),
        ({"type": "object"}, False),
        ({"properties": {"a": TEXT}, "additionalProperties": None}, True),
        ({"properties": {"a": TEXT}, "additionalProperties": True}, False),
        ({"properties": {"a": TEXT}, "additionalProperties": "x"}, False),
        ({"properties": {"a": TEXT}, "patternProperties": {"^b": TEXT}}, False),
        ({"properties": {"a": TEXT}, "required": ["a", "b"]}, False),
        ({"properties": {"a": TEXT}, "allOf": [{"properties": {"b": TEXT}}]}, False),
        ({"properties": {"a": TEXT}, "anyOf": [{"properties": {"b": TEXT}}]}, False),
        ({"properties": {"a": TEXT}, "$ref": "#/$defs/o"}, False),
        ({"properties": {"a": TEXT}, "if": {}, "then": {"properties": {"b": TEXT}}}, False),
        ({"properties": {"a": TEXT}, "dependentSchemas": {"a": {"properties": {"b": TEXT}}}}, False),
        ({"properties": {"a": TEXT}, "dependentRequired": {"a": ["b"]}}, False),
        ({"properties": {"a": TEXT}, "unevaluatedProperties": TEXT}, False),
        ({"properties": {}, "minProperties": 1}, False),
        ({"properties": {}, "propertyNames": {"minLength": 1}}, False),
        ({"anyOf": [{"properties": {"a": TEXT}}, {"type": "null"}]}, False),
    ],
)
def test_objects_that_say_nothing_of_others(schema: dict[str, Any], closed: bool) -> None:
    """An object with a list of properties gets no others, unless its schema says so or describes it elsewhere too."""
    found = relaxed({"type": "object", "$defs": {"o": {"properties": {"b": TEXT}}}, **schema})
    assert (found.schema.get("additionalProperties") is False) is closed
    assert compile_error(msgspec.json.encode(found.schema).decode()) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"enum": ["x" * 300_000]}}},
        {"properties": {"a": {"description": "x" * 300_000}}},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"$ref": "#"},
    ],
)
def test_schemas_beyond_all_limits(schema: dict[str, Any]) -> None:
    """A schema that no grammar can follow, or that is too large, is followed as a whole or not at all."""
    found = relaxed({"type": "object", **schema})
    assert found.schema["type"] == "object"
    assert found.dropped
    assert compile_error(msgspec.json.encode(found.schema).decode()) is None


def test_references_to_other_places() -> None:
    """References outside of the definitions, as in documents of OpenAPI, are followed as well."""
    user = {"type": "object", "properties": {"name": TEXT, "boss": {"$ref": "#/components/schemas/User"}}}
    properties = {f"p{number}": {"$ref": "#/components/schemas/User"} for number in range(20)}
    properties["first"] = {"$ref": "#/properties/p0"}
    root = {"type": "object", "properties": properties, "components": {"schemas": {"User": user}}}
    found = relaxed(root)
    assert not found.dropped
    grammar = Grammar("json_schema", json.dumps(found.schema))
    assert fits(grammar, '{"p0": {"name": "a", "boss": {"name": "b"}}, "first": {"name": "c"}}')
    assert not fits(grammar, '{"p0": {"name": "a", "boss": {"name": 1}}}')
    assert not fits(grammar, '{"first": {"name": 1}}')


def test_all_references_into_a_circle() -> None:
    """Each reference into a circle is left out, whichever is met first."""
    properties = {name: {"$ref": f"#/$defs/{name}"} for name in "abc"}
    found = relaxed({"type": "object", "properties": properties, "$defs": {**LOOP, "c": {"allOf": [LOOP["a"]]}}})
    assert {path[1] for path in found.dropped if path[0] == "properties"} == {"a", "b", "c"}


def test_repairs_do_not_forbid_what_they_leave_out() -> None:
    """Where a list of properties must be left out, others are allowed."""
    found = relaxed({"type": "object", "properties": {"a": TEXT}, "minProperties": 2, "additionalProperties": False})
    assert found.dropped
    assert fits(Grammar("json_schema", json.dumps(found.schema)), '{"x": 1, "y": 2}')


def test_a_required_property_without_a_value() -> None:
    """A property that nothing fits may have any value; it and all others remain required."""
    properties = {"a": {"type": "string", "enum": [1]}, "b": TEXT}
    found = relaxed({"type": "object", "properties": properties, "required": ["a", "b"]})
    assert found.dropped == (("properties", "a"),)
    grammar = Grammar("json_schema", json.dumps(found.schema))
    assert fits(grammar, '{"a": 1, "b": "x"}')
    assert not fits(grammar, '{"a": 1}')


@pytest.mark.parametrize(
    "schema",
    [
        {
            "properties": {f"p{number}": {"$ref": "#/$defs/d"} for number in range(3000)},
            "$defs": {"d": {"allOf": [{"$ref": "#/$defs/e"}] * 3000}, "e": TEXT},
        },
        {
            "properties": {f"p{number}": {"oneOf": [{"$ref": "#/$defs/d"}, TEXT]} for number in range(300)},
            "$defs": {"d": {"enum": [f"v{number}" for number in range(20_000)]}},
        },
        {"properties": {f"p{number}": {"type": "string", "pattern": f"^{number}a+$"} for number in range(1000)}},
    ],
    ids=["references", "alternatives", "patterns"],
)
def test_the_work_for_a_schema_is_bounded(schema: dict[str, Any]) -> None:
    """Schemas that repeat their parts many times are relaxed without doing the work as often."""
    found = relaxed({"type": "object", **schema})
    assert compile_error(msgspec.json.encode(found.schema).decode()) is None


def test_deep_schemas() -> None:
    """A schema that is nested too deeply to be read is replaced as a whole."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    assert relax({"type": "object", "properties": {"a": deep}}, "deep").dropped


UNUSUAL = {"type": "object", "properties": {"tags": {"type": "array", "items": TEXT, "uniqueItems": True}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"tags": ["a"]}}\n</tool_call>'


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_forced_calls(choice: Any) -> None:
    """A forced call follows what it can of a schema, and the places that it does not follow are named."""
    found = await answer_grammar(tools=[tool({}, "other"), tool(UNUSUAL)], tool_choice=choice)
    assert fits(found.grammar, CALL)
    assert not fits(found.grammar, CALL.replace('["a"]', '"a"'))
    assert not fits(found.grammar, CALL.replace('"tags"', '"more"'))
    assert found.relaxed == ("tools[1].function.parameters.properties.tags.uniqueItems",)


async def test_formats_of_responses() -> None:
    """A json_schema without strict is followed as far as possible; a strict one as a whole, or not at all."""
    found = await answer_grammar(response_format=json_schema(UNUSUAL))
    assert fits(found.grammar, '{"tags": ["a", "a"]}')
    assert not fits(found.grammar, '{"tags": "a"}')
    assert found.relaxed == ("response_format.json_schema.schema.properties.tags.uniqueItems",)
    with pytest.raises(BadRequest) as caught:
        await answer_grammar(response_format=json_schema(UNUSUAL, strict=True))
    assert caught.value.param is not None
    assert caught.value.param.startswith("response_format.json_schema.schema")


async def test_what_the_models_format_cannot_enforce() -> None:
    """A keyword that the model's own format of calls cannot enforce is left out as well, unless the tool is strict."""
    city = {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[a-z]+$"}}, "required": ["city"]}
    coder = select_format("", "qwen3_coder", "none")
    found = await answer_grammar(coder, tools=[tool(city)], tool_choice="required")
    call = "<tool_call>\n<function=weather>\n<parameter=city>\nX1\n</parameter>\n</function>\n</tool_call>"
    assert fits(found.grammar, call)
    assert not fits(found.grammar, call.replace("city", "town"))
    assert found.relaxed == ("tools[0].function.parameters.city.pattern",)
    strict = tool({**city, "additionalProperties": False}, strict=True)
    with pytest.raises(BadRequest, match="pattern"):
        await answer_grammar(coder, tools=[strict], tool_choice="required")


async def test_a_forced_call_needs_no_format() -> None:
    """A response_format has no effect where a tool must be called, as the answer has no content."""
    found = await answer_grammar(
        tools=[tool(UNUSUAL)], tool_choice="required", response_format=json_schema({"type": "object"})
    )
    assert fits(found.grammar, CALL)
    assert not fits(found.grammar, "{}")


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            *({"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}, {"type": "null"}, {}, True),
            *({"enum": ["a", 1]}, {"const": "a"}, {"type": "string", "pattern": "^(?!b)"}, {"$ref": "#/$defs/t"}),
            *({"type": "string", "format": "path"}, {"type": "string", "minLength": 1.0}, {"not": {"type": "string"}}),
        ]
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda properties, more: {"type": "object", "properties": dict(sorted(properties.items())), **more},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.sampled_from([{}, {"minProperties": 1}, {"dependentRequired": {"a": ["b"]}}, {"required": ["a"]}]),
        ),
        st.builds(lambda items: {"type": "array", "items": items, "uniqueItems": True}, inner),
        st.builds(
            lambda key, some: {key: some}, st.sampled_from(["anyOf", "oneOf"]), st.lists(inner, min_size=1, max_size=3)
        ),
    ),
    max_leaves=8,
)
VALUES = st.recursive(
    st.sampled_from([None, True, 0, 7, "", "a", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


def closed(schema: Any) -> Any:
    """Return a schema whose objects have no properties but those that are listed and those that are required."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and set(schema.get("required", ())) <= schema["properties"].keys():
        found["additionalProperties"] = False
    return found


@given(SCHEMAS, VALUES)
def test_what_fits_a_schema_fits_the_relaxed_one(schema: Any, value: Any) -> None:
    """Every value that fits a schema fits its relaxed form, if its objects have only the properties that are listed."""
    root = {"type": "object", "properties": {"v": schema}, "required": ["v"], "$defs": {"t": {"type": "string"}}}
    found = relaxed(root)
    assert compile_error(msgspec.json.encode(found.schema).decode()) is None
    if jsonschema.Draft202012Validator(closed(root)).is_valid({"v": value}):
        text = json.dumps({"v": value}, ensure_ascii=False, sort_keys=True)
        assert fits(Grammar("json_schema", json.dumps(found.schema)), text)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_is_told(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The response names the places that are not followed, in ASCII and at most 1 KiB, and so does the access log."""
    caplog.set_level(logging.INFO, "adapter.access")
    node = MockProtocol([*b"{}"], capabilities=Capabilities(resume="exact", grammars=("json_schema",)))
    properties = {f"zürich{number}": {"type": "array", "uniqueItems": True} for number in range(100)}
    asked = {
        **ASK,
        "stream": stream,
        "response_format": json_schema({"type": "object", "properties": properties}),
    }
    async with gateway(node, settings=Settings()) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post("/v1/chat/completions", json=asked)
    header = response.headers["x-schema-relaxed"]
    first, *others = header.split(", ")
    assert first == "response_format.json_schema.schema.properties.z?rich0.uniqueItems"
    assert others[-1] == "..."
    assert 1024 - 100 < len(header) <= 1024
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.name == "adapter.access"]
    assert line["relaxed"][0] == "response_format.json_schema.schema.properties.zürich0.uniqueItems"
    assert len(line["relaxed"]) == 16
