"""The form an answer must have: OpenAI's `response_format`, and vLLM's `structured_outputs`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

MAX_CHOICES = 1024

# The last part is `\Z` as JSON Schema can say it: a `$` would let a line end follow.
NAME = r"^[a-zA-Z0-9_-]+(?![\s\S])"
Name = Annotated[str, Meta(pattern=NAME, max_length=64)]

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]


class TextFormat(Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class JsonObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    """Any JSON object."""


class JsonSchema(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without a `schema` any JSON object fits. `strict` asks for OpenAI's rules for schemas, too."""

    name: Name
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class JsonSchemaFormat(Struct, frozen=True, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat

Json = dict[str, Any] | str
"""A JSON schema, or its text."""

Pattern = Annotated[str, Meta(min_length=1)]
Choices = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=MAX_CHOICES)]


class StructuredOutputs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Just one of these is not None (`read_request` sees to it), and the whole answer fits it.

    `json` is a JSON schema or its text, `regex` a regular expression, `choice` lists the only answers, `grammar` is a
    context-free grammar in the notation of Lark or of GBNF, `json_object` true asks for any JSON object.
    """

    json: Json | None = None
    regex: Pattern | None = None
    choice: Choices | None = None
    grammar: Pattern | None = None
    json_object: bool | None = None
