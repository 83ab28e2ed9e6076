"""Parsing of answers into reasoning, tool calls and content, and grammars that tool calls must fit."""

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.lark import UnsupportedSchema
from adapter.tools.parser import Parser
from adapter.tools.registry import FORMATS, NONE, REASONING, ModelFormat, parse_format_name, select_format

__all__ = [
    "FORMATS",
    "NONE",
    "REASONING",
    "ModelFormat",
    "Parser",
    "ToolFormat",
    "UnsupportedSchema",
    "parse_format_name",
    "select_format",
]
