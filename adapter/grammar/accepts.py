"""Whether a grammar allows a text."""

from __future__ import annotations

from llguidance import LLMatcher

from adapter.grammar.compile_check import byte_tokenizer


def accepts(grammar: str, text: str) -> bool:
    """Return True if `grammar`, in llguidance's Lark dialect and without control tokens, allows the whole `text`.

    False as well if the grammar does not compile. Takes milliseconds for small grammars.
    """
    matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0)
    return bool(not matcher.is_error() and matcher.consume_tokens(list(text.encode())) and matcher.is_accepting())
