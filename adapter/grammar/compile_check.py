"""Trial compilation of JSON schemas: whether a grammar can be made of one, and why not."""

from __future__ import annotations

import re
from functools import cache

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from subnet.panics import LibraryPanic, panics_as_errors

UNSUPPORTED = re.compile("Unimplemented keys|oneOf constraints are not supported")
"""llguidance's messages for unsupported keywords. They are not shown, as they refer to its own options."""

_REGEX_ERROR = re.compile(r"^error: (.*)", re.MULTILINE)
_MAX_MESSAGE = 200


def compile_error(text: str, is_part: bool = False) -> str | None:
    """Return llguidance's error for a JSON schema as text, or None, in one line.

    The schema is compiled as it is on nodes, except for the vocabulary, as some errors are only found then; `is_part`:
    that is done for the whole schema later. Takes up to a second for a large schema, without the GIL.
    """
    try:
        with panics_as_errors:
            return _compile_error(text, is_part)
    except (ValueError, LibraryPanic) as error:
        return _readable(str(error))


def _compile_error(text: str, is_part: bool) -> str | None:
    grammar = LLMatcher.grammar_from_json_schema(text)
    is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    if is_error:
        return _readable(messages[0])
    if is_part:
        return None
    matcher = LLMatcher(_bytes(), grammar, log_level=0)
    return _readable(matcher.get_error()) if matcher.is_error() else None


def _readable(message: str) -> str:
    """Return the sentence in a message that may fill pages."""
    if message.startswith("regex parse error") and (found := _REGEX_ERROR.search(message)) is not None:
        return f"invalid regular expression: {found[1]}"[:_MAX_MESSAGE]
    return " ".join(message.split("\n")[0].split())[:_MAX_MESSAGE]


class _Bytes:
    """Vocabulary of the 256 bytes and an end token, with llguidance's attribute names."""

    bos_token_id, eos_token_id = None, 256
    special_token_ids = (256,)
    tokens = (*(bytes([value]) for value in range(256)), b"<end>")

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def _bytes() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()))
