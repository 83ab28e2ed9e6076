"""Output formats: OpenAI's `response_format`, and vLLM's `structured_outputs`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

MAX_CHOICES = 1024

# The lookahead is `\Z` in JSON Schema's dialect of regular expressions: `$` would allow a trailing newline.
NAME = r"^[a-zA-Z0-9_-]+(?![\s\S])"
Name = Annotated[str, Meta(pattern=NAME, max_length=64)]

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]


class TextFormat(Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class JsonObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    """Requires the answer to be a JSON object."""


class JsonSchema(Struct, frozen=True, kw_only=True):
    """A named JSON schema. Without `schema`, any JSON object is valid. `strict` enforces OpenAI's rules for schemas."""

    name: Name
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class JsonSchemaFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat

Json = dict[str, Any] | str
"""JSON schema, or its text."""

Pattern = Annotated[str, Meta(min_length=1)]
Choices = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=MAX_CHOICES)]


class StructuredOutputs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Format that the whole answer must match. Exactly one of the fields must be set.

    `json` is a JSON schema or its text, `regex` a regular expression, `choice` the list of allowed answers, `grammar` a
    context-free grammar in Lark or GBNF notation; `json_object` true allows any JSON object.
    """

    json: Json | None = None
    regex: Pattern | None = None
    choice: Choices | None = None
    grammar: Pattern | None = None
    json_object: bool | None = None
