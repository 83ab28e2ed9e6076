"""Keeps control tokens out of what users wrote, across the rendering of a chat template.

A template gives one string, in which a user's "<|im_end|>" would look like the template's own. So before rendering,
a mark is put into every control token's text that users' strings hold; the tokenizer takes what it still finds to be
control tokens, and removes the marks from all other text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from subnet.errors import InvalidRequest

T = TypeVar("T")

MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Noncharacters: Unicode keeps them for such inner use, so texts have none."""

_WORDS = frozenset(
    {"system", "developer", "user", "assistant", "tool", "function"}
    | {"role", "content", "reasoning_content", "name", "type", "text", "refusal", "id", "tool_calls", "tool_call_id"}
    | {"arguments", "parameters", "description", "title"}
    | {"properties", "required", "items", "enum", "anyOf", "additionalProperties", "$ref", "$defs"}
    | {"object", "array", "string", "integer", "number", "boolean", "null"}
    | {"none", "minimal", "low", "medium", "high"}
)
"""What templates look for in messages and tools: never changed, even if a control token starts or ends like one."""

_LISTS = (list, tuple)
_DICTS = (dict, Mapping)

_NEVER = "(?!)"

_Trie = dict[str, "_Trie"]


class Guard:
    """Made once per model from the texts of its control tokens.

    Broken are whole control tokens, and the start of one at the end of a string or the end of one at its start, since
    other text may follow or precede it. Not seen is what a template makes itself out of a user's text, by deleting
    from its middle or changing its case. A control token of one character cannot be broken.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        texts = [text for text in texts if len(text) > 1]
        self._start = re.compile(_starts(texts))
        self._head = re.compile(rf"\s*+(?={_any(text[cut:] for text in texts for cut in range(1, len(text)))})")

    def protect(self, value: T) -> tuple[T, str]:
        """A guarded copy of lists, dicts and strings in each other, and the mark in it: a character that is
        nowhere in `value`.

        Raises InvalidRequest when no mark is free, or `value` is nested too deep.
        """
        try:
            for mark in MARKS:
                try:
                    return self._copy(value, mark), mark
                except _TakenError:
                    continue
        except RecursionError as error:
            raise InvalidRequest("The messages are nested too deeply.", param="messages") from error
        message = "The messages contain every Unicode noncharacter; at least one must be unused."
        raise InvalidRequest(message, param="messages")

    def _copy(self, value: Any, mark: str) -> Any:
        """Raises _TakenError when the mark is in there already."""
        if isinstance(value, str):
            return value if value in _WORDS else self._text(value, mark)
        if isinstance(value, _LISTS):
            return [self._copy(item, mark) for item in value]
        if isinstance(value, _DICTS):
            return {self._copy(key, mark): self._copy(item, mark) for key, item in value.items()}
        return value

    def _text(self, text: str, mark: str) -> str:
        if mark in text:
            raise _TakenError
        broken = self._start.sub(rf"\g<0>{mark}", text) if self._start.search(text) else text
        head = self._head.match(broken)
        return broken if head is None else broken[: head.end()] + mark + broken[head.end() :]


class _TakenError(Exception):
    pass


def _trie(texts: Iterable[str]) -> _Trie:
    trie: _Trie = {}
    for text in sorted(texts, key=len, reverse=True):  # so that a text ends the longer ones that it starts
        node = trie
        for character in text:
            node = node.setdefault(character, {})
        node.clear()
    return trie


def _any(texts: Iterable[str]) -> str:
    """Matches any of the texts, the shortest where one starts another."""
    return _rest(_trie(texts)) or _NEVER


def _starts(texts: Iterable[str]) -> str:
    """Matches the first character of a text, or of what the end of the string cut off from one."""
    trie = _trie(texts).items()
    return "|".join(f"{re.escape(first)}(?={_rest(node, _CUT)})" for first, node in trie) or _NEVER


_CUT = r"|\s*\Z"


def _rest(node: _Trie, otherwise: str = "") -> str:
    if not node:
        return ""
    branches = "|".join(re.escape(character) + _rest(child, otherwise) for character, child in node.items())
    return f"(?:{branches}{otherwise})"
