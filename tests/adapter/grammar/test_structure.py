"""Grammars made from output formats and tools, and errors that name the place in a schema."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import msgspec
import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from adapter.api.common.translate_sampling import output_format
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.translate import generation_request
from adapter.errors import BadRequest
from adapter.grammar.build import build_grammar, build_plain_grammar
from adapter.tools import ModelFormat, select_format
from subnet.generation import Grammar

PLAIN = select_format("no marks", None, "none")
THINKS = select_format("<think>")
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STRICT = {**WEATHER, "additionalProperties": False}


class Bytes:
    """Vocabulary of the 256 bytes and an end token, with llguidance's attribute names."""

    bos_token_id, eos_token_id = None, 256
    special_token_ids = (256,)
    tokens = (*(bytes([value]) for value in range(256)), b"<end>")

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


TOKENIZER = LLTokenizer(TokenizerWrapper(Bytes()))
MAKERS: dict[str, Callable[[str], str]] = {
    "json_schema": LLMatcher.grammar_from_json_schema,
    "regex": LLMatcher.grammar_from_regex,
    "lark": LLMatcher.grammar_from_lark,
}


def fits(grammar: Grammar | None, text: str) -> bool:
    assert grammar is not None
    matcher = LLMatcher(TOKENIZER, MAKERS[grammar.kind](grammar.text), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()


def request(**fields: Any) -> ChatCompletionRequest:
    given = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields
    return msgspec.convert(given, ChatCompletionRequest)


def tool(parameters: dict[str, Any], name: str = "weather", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


def json_schema(schema: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, **fields}}


async def grammar(kind: ModelFormat = PLAIN, opened: bool = False, **fields: Any) -> Grammar | None:
    wanted = generation_request(request(**fields))
    return (await build_grammar(wanted.tools, wanted.output_format, kind, {}, opened)).grammar


async def refusal(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        await grammar(**fields)
    return caught.value


@pytest.mark.parametrize(
    "fields",
    [{}, {"response_format": {"type": "text"}}, {"tools": [tool(WEATHER)]}, {"tools": [tool({"not": {}})]}],
)
async def test_unconstrained_text(fields: dict[str, Any]) -> None:
    """Without an enforced format or tool there is no grammar."""
    assert await grammar(**fields) is None


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        ({"response_format": {"type": "json_object"}}, '{"a": [1]}', "[1]"),
        ({"response_format": json_schema(WEATHER)}, '{"city": "x"}', "{}"),
        ({"structured_outputs": {"json": WEATHER}}, '{"city":"x"}', '{"city": 1}'),
        ({"structured_outputs": {"json_object": True}}, "{}", "1"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True}}}, '{"a": 1}', "1"),
        ({"guided_json": '{"type": "integer"}'}, "17", '"17"'),
        ({"response_format": {"type": "text"}, "guided_regex": "a+"}, "aa", "b"),
        ({"guided_regex": "a/b|\\d+"}, "a/b", "ab"),
        ({"guided_choice": ["yes.", "(n o)/\n"]}, "(n o)/\n", "yes!"),
        ({"structured_outputs": {"grammar": 'start: "a" | "b" /c+/'}}, "bcc", "c"),
        ({"structured_outputs": {"grammar": 'root ::= "a" | "b" [0-9]+'}}, "b12", "ab"),
    ],
)
async def test_output_formats(fields: dict[str, Any], good: str, bad: str) -> None:
    """The grammar of each output format accepts matching text and rejects other text, for chats and plain prompts."""
    for found in (await grammar(**fields), (await build_plain_grammar(output_format(request(**fields)))).grammar):
        assert fits(found, good)
        assert not fits(found, bad)


@pytest.mark.parametrize(
    ("choice", "several"),
    [("required", True), ({"type": "function", "function": {"name": "weather"}}, False)],
)
async def test_forced_calls(choice: object, several: bool) -> None:
    """tool_choice "required" allows one or more calls, a named function exactly one, and arguments must match their
    schema.
    """
    found = await grammar(tools=[tool(WEATHER), tool({}, "other")], tool_choice=choice)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "x"}}\n</tool_call>'
    assert fits(found, call)
    assert fits(found, f"{call}\n{call}") is several
    assert fits(found, call.replace("weather", "other")) is several
    assert not fits(found, call.replace("city", "town"))
    assert not fits(found, "x")


async def test_calls_one_at_a_time() -> None:
    """With parallel_tool_calls false, only one call is allowed."""
    found = await grammar(tools=[tool(WEATHER)], tool_choice="required", parallel_tool_calls=False)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "x"}}\n</tool_call>'
    assert fits(found, call)
    assert not fits(found, f"{call}\n{call}")


async def test_allowed_tools() -> None:
    """Only tools listed in allowed_tools can be called."""
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "other"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    found = await grammar(tools=[tool(WEATHER), tool({}, "other")], tool_choice=choice)
    assert fits(found, '<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>')
    assert not fits(found, '<tool_call>\n{"name": "weather", "arguments": {"city": "x"}}\n</tool_call>')


@pytest.mark.parametrize("form", [{"response_format": json_schema(WEATHER)}, {"guided_regex": 'a/b|\n|\\{"city".*'}])
async def test_optional_calls_and_an_output_format(form: dict[str, Any]) -> None:
    """With optional tools and an output format, an answer is a call or matches the format."""
    found = await grammar(tools=[tool(WEATHER)], **form)
    assert fits(found, '{"city": "x"}')
    assert fits(found, '<tool_call>\n{"name": "weather", "arguments": {"city": "x"}}\n</tool_call>')
    assert not fits(found, "x")


async def test_reasoning_before_an_output_format() -> None:
    """Reasoning may precede an answer with an output format, which only the content has to match."""
    found = await grammar(THINKS, response_format=json_schema(WEATHER))
    assert fits(found, '<think>so {</think>\n\n{"city": "x"}')
    assert fits(found, '{"city": "x"}')
    opened = await grammar(THINKS, opened=True, response_format=json_schema(WEATHER))
    assert fits(opened, 'so {</think>{"city": "x"}')
    assert not fits(opened, '{"city": "x"}')


HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "x"}}\n</tool_call>'
AUTO: list[object] = [
    None,
    "auto",
    {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "weather"}}]},
    },
]


@pytest.mark.parametrize("choice", AUTO)
async def test_optional_strict_tools(choice: object) -> None:
    """Optional calls to strict tools must match their schema; other text is free."""
    found = await grammar(tools=[tool(STRICT, strict=True)], tool_choice=choice)
    for text in ("", "Hi <tool", HERMES, f"Sure.\n{HERMES}\n{HERMES}"):
        assert fits(found, text)
    assert not fits(found, HERMES.replace("city", "town"))
    assert not fits(found, HERMES.replace("weather", "other"))


async def test_tools_beside_strict_ones() -> None:
    """Arguments of tools that are not strict are not constrained, even beside strict ones."""
    found = await grammar(tools=[tool(STRICT, strict=True), tool({"not": {}}, "other")])
    assert fits(found, HERMES)
    assert fits(found, HERMES.replace("weather", "other").replace("city", "town"))
    found = await grammar(tools=[tool({"not": {}}, "other")], response_format={"type": "json_object"})
    assert fits(found, HERMES.replace("weather", "other"))


async def test_one_call_at_most() -> None:
    """With parallel_tool_calls false, optional calls are limited to one."""
    found = await grammar(tools=[tool(WEATHER)], parallel_tool_calls=False)
    assert fits(found, f"Sure. {HERMES}")
    assert fits(found, HERMES.replace("city", "town"))
    assert not fits(found, f"{HERMES}\n{HERMES}")
    assert await grammar(tools=[tool(WEATHER)], parallel_tool_calls=False, tool_choice="none") is None
    assert await grammar(select_format("", "none"), tools=[tool(WEATHER)], parallel_tool_calls=False) is None


async def test_output_format_in_harmony_channels() -> None:
    """In the harmony format the final message matches the output format; reasoning and calls may precede or
    replace it.
    """
    harmony = select_format("", "harmony")
    found = await grammar(harmony, response_format=json_schema(WEATHER), tools=[tool(STRICT, strict=True)])
    reasoned = "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant"
    called = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "x"}'
    for text in ('<|channel|>final<|message|>{"city": "x"}', called):
        assert fits(found, text)
        assert fits(found, reasoned + text)
        assert not fits(found, text.replace("city", "town"))


async def test_guided_grammar_excludes_channels() -> None:
    """A guided_grammar cannot be combined with the channels of the harmony format."""
    with pytest.raises(BadRequest, match="tools or reasoning"):
        await grammar(select_format("", "harmony"), guided_grammar='start: "a"')


@pytest.mark.parametrize(
    ("keyword", "schema"),
    [
        ("oneOf", {"oneOf": [{"type": "string"}, {"type": "integer"}, {}]}),
        ("not", {"not": {}}),
        ("uniqueItems", {"type": "array", "uniqueItems": True}),
    ],
)
async def test_unsupported_keyword_is_named(keyword: str, schema: dict[str, Any]) -> None:
    """The error for an unsupported schema keyword names the keyword and its place."""
    error = await refusal(guided_json={"type": "object", "properties": {"a": schema}})
    assert error.param == f"guided_json.properties.a.{keyword}"
    assert error.message.endswith(f"'{keyword}' is not supported.")


CALL = {"tools": [tool(WEATHER)], "tool_choice": "required"}
GRAMMAR = {"guided_grammar": 'start: "a"'}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({**CALL, "guided_regex": "a"}, "guided_regex"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"tools": [tool(WEATHER)], **GRAMMAR}, "guided_grammar"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs.regex"),
        ({"guided_grammar": "start: nothing"}, "guided_grammar"),
        ({"guided_grammar": "root ::= ((("}, "guided_grammar"),
        ({"guided_grammar": "\x00\\"}, "guided_grammar"),
        ({"guided_grammar": "# nothing"}, "guided_grammar"),
        ({"guided_grammar": "root ::= [a-z\\"}, "guided_grammar"),
        ({"guided_grammar": "root ::= " + "(" * 10_000}, "guided_grammar"),
        ({"guided_regex": "a" * 70_000}, "guided_regex"),
        ({"guided_grammar": f"start: {'nothing' * 1000}"}, "guided_grammar"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": '{"a": ' * 100_000}, "guided_json"),
    ],
)
async def test_invalid_combinations(fields: dict[str, Any], param: str) -> None:
    """Conflicting or invalid formats are rejected with the parameter, in a short message."""
    error = await refusal(**fields)
    assert error.param == param
    assert len(error.message) < 400


def inside(part: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"ok": {"type": "string"}, "age": part}}


FAULTS = [
    ({"type": "integer", "minimum": "x"}, "minimum"),
    ({"not": {"type": "string"}}, "not"),
    ({"type": "array", "items": {"type": "array", "uniqueItems": True}}, "items.uniqueItems"),
    ({"anyOf": [{"type": "string"}, {"type": "nothing"}]}, "anyOf[1].type"),
    ({"type": "string", "pattern": "("}, "pattern"),
    ({"type": "string", "format": "nothing"}, "format"),
    ({"$ref": "#/$defs/nothing"}, "$ref"),
    ({"type": "object", "additionalProperties": {"oneOf": [{"type": "string"}, {}]}}, "additionalProperties.oneOf"),
]


@pytest.mark.parametrize(("part", "path"), FAULTS)
async def test_place_of_an_error_in_a_schema(part: dict[str, Any], path: str) -> None:
    """The error for an invalid schema names the exact place in it, wherever the schema is in the request."""
    schema = inside(part)
    error = await refusal(structured_outputs={"json": schema})
    assert error.param == f"structured_outputs.json.properties.age.{path}"
    assert "'properties', 'age'" in error.message
    assert (await refusal(guided_json=schema)).param == f"guided_json.properties.age.{path}"
    with pytest.raises(BadRequest) as plain:
        await build_plain_grammar(output_format(request(guided_json=schema)))
    assert plain.value.param == f"guided_json.properties.age.{path}"


async def test_error_in_a_definition() -> None:
    """An error in a shared definition is reported at the definition, not at the reference to it."""
    schema = {"$defs": {"age": {"type": "integer", "multipleOf": 0}}} | inside({"$ref": "#/$defs/age"})
    error = await refusal(guided_json=schema)
    assert error.param == "guided_json.$defs.age.multipleOf"
    part = {"type": "object", "properties": {"age": {"$ref": "#/$defs/age"}, "name": {"format": "nothing"}}}
    error = await refusal(guided_json={"$defs": {"age": {"type": "integer"}}} | inside(part))
    assert error.param == "guided_json.properties.age.properties.name.format"


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}}, "$defs.a.$ref"),
        (
            inside({"$ref": "#/$defs/a"}) | {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
            "$defs.a.$ref",
        ),
        (inside({"$ref": "#/$defs/a"}) | {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "$defs.a.allOf[0].$ref"),
    ],
)
async def test_endless_references(schema: dict[str, Any], path: str) -> None:
    """References in a circle that no grammar can follow are rejected before any node is asked, at their place."""
    used = inside({"$ref": "#/$defs/a"}) | schema
    assert (await refusal(guided_json=used)).param == f"guided_json.{path}"


async def test_regular_expressions_that_cannot_be_enforced() -> None:
    """The error says what is wrong with a pattern."""
    error = await refusal(guided_json=inside({"type": "string", "pattern": "^(?=a)"}))
    assert "invalid regular expression: look-around" in error.message


async def test_schemas_too_large_or_too_deep() -> None:
    """A schema that is too large or nested too deeply is rejected as a whole."""
    large = inside({"enum": ["x" * 300_000]})
    assert (await refusal(structured_outputs={"json": large})).param == "structured_outputs.json"
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        deep = {"type": "array", "items": deep}
    error = await refusal(guided_json=deep)
    assert error.param is not None
    assert error.param.startswith("guided_json")


def strict_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


ADDRESS = strict_object(street={"type": "string", "pattern": "^[a-z]+$"})
GOOD = strict_object(
    name={"type": "string", "description": "x", "minLength": 1},
    age={"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
    kind={"enum": ["a", "b"]},
    tags={"type": "array", "items": {"type": "string"}, "maxItems": 3},
    address={"$ref": "#/$defs/address"},
    when={"type": "string", "format": "date-time", "default": "x", "examples": [1], "deprecated": True},
    home={"$ref": "#/$defs/address", "description": "x", "readOnly": True, "x-order": 1, "$comment": "x"},
) | {"$defs": {"address": ADDRESS}}


KEYWORDS = (
    *("type", "enum", "const", "anyOf", "oneOf", "allOf", "not", "$ref", "$defs", "definitions", "$schema", "$id"),
    *("properties", "required", "additionalProperties", "patternProperties", "items", "prefixItems", "minItems"),
    *("pattern", "format", "minLength", "maxLength", "minimum", "exclusiveMaximum", "multipleOf", "title", "default"),
)
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    1e30,
    "x",
    "",
    "#/",
    "#/$defs/x",
    [],
    [1],
    [[]],
    [None],
    [{}],
    {},
    {"a": 1},
    {"a": None},
    {"a": []},
)


@pytest.mark.parametrize("keyword", KEYWORDS)
@pytest.mark.parametrize("strict", [True, False])
async def test_unusual_values_of_keywords(keyword: str, strict: bool) -> None:
    """A schema keyword with any kind of value is used, or with strict rejected, without an unexpected error."""
    for value in ODD:
        for schema in ({**STRICT, keyword: value}, strict_object(a={"type": "string", keyword: value})):
            for asked in (
                {"response_format": json_schema(schema, strict=strict)},
                {"tools": [tool(schema, strict=strict)], "tool_choice": "required"},
            ):
                with suppress(BadRequest) if strict else nullcontext():
                    await grammar(**asked)


async def test_strict_schemas() -> None:
    """A schema that OpenAI's strict mode allows is accepted in a format and in a tool."""
    assert await grammar(response_format=json_schema(GOOD, strict=True)) is not None
    assert await grammar(tools=[tool(GOOD, strict=True)]) is not None
    assert await grammar(response_format=json_schema(WEATHER)) is not None


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "array", "items": {"type": "string"}}, ".type"),
        ({"anyOf": [STRICT, STRICT]}, ".type"),
        (WEATHER, ".additionalProperties"),
        ({**STRICT, "required": []}, ".required"),
        ({**STRICT, "required": 5}, ".required"),
        (strict_object(a={"type": "string", "nullable": True}), ".properties.a.nullable"),
        (strict_object(a={"oneOf": [{"type": "string"}]}), ".properties.a.oneOf"),
        (strict_object(a={"allOf": [{"type": "string"}]}), ".properties.a.allOf"),
        (strict_object(a={"type": "array", "items": WEATHER}), ".properties.a.items.additionalProperties"),
        (strict_object(a={"type": "array"}), ".properties.a"),
        (strict_object(a={"description": "x"}), ".properties.a"),
        (strict_object(a={"type": "string", "format": "uri"}), ".properties.a.format"),
        (strict_object(a={"$ref": "#/$defs/b", "minLength": 1}), ".properties.a.minLength"),
        (strict_object(a=True), ".properties.a"),
        (strict_object(a={"enum": [1], "properties": {"b": {"type": "string"}}}), ".properties.a.additionalProperties"),
        (strict_object(a={"enum": [f"v{number}" for number in range(1001)]}), ""),
        (strict_object(a={"enum": ["x" * 119_999, "y"]}), ""),
        (strict_object(a={"type": "integer", "minimum": "x"}), ".properties.a.minimum"),
    ],
)
async def test_schemas_that_strict_mode_rejects(schema: dict[str, Any], path: str) -> None:
    """A schema that breaks a rule of strict mode is rejected with the place, in a format and in a tool, forced
    or not.
    """
    error = await refusal(response_format=json_schema(schema, strict=True))
    assert error.param == f"response_format.json_schema.schema{path}"
    error = await refusal(tools=[tool(schema, strict=True)])
    assert error.param == f"tools[0].function.parameters{path}"


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = strict_object(a=schema)
    return schema


def listed(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        schema = {"type": "array", "items": schema}
    return strict_object(a=schema)


def defined(levels: int) -> dict[str, Any]:
    return strict_object(a={"$ref": "#/$defs/b"}) | {"$defs": {"b": nested(levels)}}


@pytest.mark.parametrize("make", [nested, listed, defined])
async def test_nesting_limit_of_strict_mode(make: Callable[[int], dict[str, Any]]) -> None:
    """A strict schema may have ten levels of nesting, counted from the schema or a definition, and eleven are
    rejected.
    """
    assert await grammar(response_format=json_schema(make(10), strict=True)) is not None
    assert (await refusal(response_format=json_schema(make(11), strict=True))).message.endswith("10 levels deep.")


async def test_size_limits_of_strict_mode() -> None:
    """A strict schema may have 1,000 enum values, and 120,000 characters of names and values."""
    for values in ([f"v{number}" for number in range(1000)], ["x" * 119_999]):
        assert await grammar(response_format=json_schema(strict_object(a={"enum": values}), strict=True)) is not None
