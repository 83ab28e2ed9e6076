"""Text -> parts: what of an answer is reasoning, tool calls and content. One parser per choice, one file per format."""

from adapter.tools.base import ToolFormat
from adapter.tools.grammar.lark import UnsupportedSchema
from adapter.tools.parser import Parser
from adapter.tools.registry import FORMATS, NONE, REASONING, Kind, choose, named

__all__ = ["FORMATS", "NONE", "REASONING", "Kind", "Parser", "ToolFormat", "UnsupportedSchema", "choose", "named"]
