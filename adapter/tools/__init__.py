"""Text -> parts: what of an answer is reasoning, tool calls and content. One parser per choice, one file per format."""

from adapter.tools.formats.base import ToolFormat
from adapter.tools.grammar.lark import UnsupportedSchema
from adapter.tools.parser import Parser
from adapter.tools.registry import FORMATS, NONE, REASONING, ModelFormat, detect_format, parse_format_name

__all__ = ["FORMATS", "NONE", "REASONING", "ModelFormat", "Parser", "ToolFormat", "UnsupportedSchema", "detect_format", "parse_format_name"]
