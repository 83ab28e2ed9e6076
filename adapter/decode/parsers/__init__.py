"""Text -> parts: what of an answer is reasoning, tool calls and content. One parser per choice, one file per format."""

from adapter.decode.parsers.choose import FORMATS, NONE, REASONING, Kind, choose, named
from adapter.decode.parsers.format import ToolFormat
from adapter.decode.parsers.lark import UnsupportedSchema
from adapter.decode.parsers.parser import Parser

__all__ = ["FORMATS", "NONE", "REASONING", "Kind", "Parser", "ToolFormat", "UnsupportedSchema", "choose", "named"]
