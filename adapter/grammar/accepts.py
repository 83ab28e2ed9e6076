"""Whether a grammar allows a text."""

from __future__ import annotations

from llguidance import LLMatcher

from adapter.grammar.compile_check import byte_tokenizer
from subnet.panics import LibraryPanic, panics_as_errors


def accepts(grammar: str, text: str) -> bool:
    """Return True if `grammar`, in llguidance's Lark dialect and without control tokens, allows the whole `text`.

    False as well if the grammar does not compile, or if a text is not Unicode. Takes milliseconds for small grammars.
    """
    try:
        with panics_as_errors:
            matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0)
            allowed = not matcher.is_error() and matcher.consume_tokens(list(text.encode()))
            return bool(allowed and matcher.is_accepting())
    except (ValueError, LibraryPanic):
        return False
