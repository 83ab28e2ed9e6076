"""Grammars that tool calls are generated under."""
