"""Protection against control tokens in users' text (prompt injection by special tokens).

A chat template returns one string, in which a user's "<|im_end|>" could not be distinguished from the template's own.
So before rendering, a mark is inserted into the text of each control token in users' strings. The tokenizer then
encodes the remaining occurrences as control tokens, and removes the marks from all other text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from subnet.errors import InvalidRequest

T = TypeVar("T")

MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Candidates for the mark: noncharacters, which Unicode reserves for internal use, so normal text has none."""

_UNCHANGED = frozenset(
    {"system", "developer", "user", "assistant", "tool", "function"}
    | {"role", "content", "reasoning_content", "name", "type", "text", "refusal", "id", "tool_calls", "tool_call_id"}
    | {"arguments", "parameters", "description", "title"}
    | {"properties", "required", "items", "enum", "anyOf", "additionalProperties", "$ref", "$defs"}
    | {"object", "array", "string", "integer", "number", "boolean", "null"}
    | {"none", "minimal", "low", "medium", "high"}
)
"""Strings that templates compare with in messages and tools. They get no mark, even if a control token starts or ends
like one of them."""

_LISTS = (list, tuple)
_DICTS = (dict, Mapping)

_NO_MATCH = "(?!)"

_Trie = dict[str, "_Trie"]


class Guard:
    """Inserts marks into control tokens in users' text. `texts` are the texts of a model's control tokens.

    A mark is inserted into complete control tokens, into the start of one at the end of a string, and into the end of
    one at its start, since the template may add the rest. Control tokens that a template itself creates from a user's
    text, by deleting characters within it or changing its case, are not detected. Control tokens of one character
    cannot be broken up.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        texts = [text for text in texts if len(text) > 1]
        self._start = re.compile(_start_pattern(texts))
        self._end = re.compile(rf"\s*+(?={_any_pattern(text[cut:] for text in texts for cut in range(1, len(text)))})")

    def protect(self, value: T) -> tuple[T, str]:
        """Return a copy of `value`, nested lists, dicts and strings, with marks, and the mark: a character that
        `value` does not contain.

        Raises InvalidRequest if `value` contains all candidates, or is nested too deeply.
        """
        try:
            for mark in MARKS:
                try:
                    return self._copy(value, mark), mark
                except _MarkInUseError:
                    continue
        except RecursionError as error:
            raise InvalidRequest("The messages are nested too deeply.", param="messages") from error
        message = "The messages contain every Unicode noncharacter; at least one must be unused."
        raise InvalidRequest(message, param="messages")

    def _copy(self, value: Any, mark: str) -> Any:
        """Return a copy with marks. Raises _MarkInUseError if `value` contains the mark."""
        if isinstance(value, str):
            return value if value in _UNCHANGED else self._insert_marks(value, mark)
        if isinstance(value, _LISTS):
            return [self._copy(item, mark) for item in value]
        if isinstance(value, _DICTS):
            return {self._copy(key, mark): self._copy(item, mark) for key, item in value.items()}
        return value

    def _insert_marks(self, text: str, mark: str) -> str:
        if mark in text:
            raise _MarkInUseError
        result = self._start.sub(rf"\g<0>{mark}", text) if self._start.search(text) else text
        end = self._end.match(result)
        return result if end is None else result[: end.end()] + mark + result[end.end() :]


class _MarkInUseError(Exception):
    pass


def _trie(texts: Iterable[str]) -> _Trie:
    trie: _Trie = {}
    for text in sorted(texts, key=len, reverse=True):  # a text replaces the longer ones that it is a prefix of
        node = trie
        for character in text:
            node = node.setdefault(character, {})
        node.clear()
    return trie


def _any_pattern(texts: Iterable[str]) -> str:
    """Return a pattern that matches any of the texts, the shortest if one is a prefix of another."""
    return _trie_pattern(_trie(texts)) or _NO_MATCH


def _start_pattern(texts: Iterable[str]) -> str:
    """Return a pattern that matches the first character of a text, which may be cut off by the end of the string."""
    trie = _trie(texts).items()
    return "|".join(f"{re.escape(first)}(?={_trie_pattern(node, _OR_END)})" for first, node in trie) or _NO_MATCH


_OR_END = r"|\s*\Z"


def _trie_pattern(node: _Trie, alternative: str = "") -> str:
    """Return a pattern for the texts below `node`. `alternative` is added to the branches of each node."""
    if not node:
        return ""
    branches = "|".join(re.escape(character) + _trie_pattern(child, alternative) for character, child in node.items())
    return f"(?:{branches}{alternative})"
