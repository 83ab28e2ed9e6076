"""Parsing of answers into reasoning, tool calls and content, and grammars that tool calls must fit."""

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.lark import UnsupportedSchema
from adapter.tools.grammar.reasoning import Tags
from adapter.tools.parser import Parser
from adapter.tools.registry import (
    FORMATS,
    NONE,
    REASONING,
    ModelFormat,
    call_formats,
    parse_format_name,
    reasoning_tags,
    select_format,
)

__all__ = [
    "FORMATS",
    "NONE",
    "REASONING",
    "ModelFormat",
    "Parser",
    "Tags",
    "ToolFormat",
    "UnsupportedSchema",
    "call_formats",
    "parse_format_name",
    "reasoning_tags",
    "select_format",
]
