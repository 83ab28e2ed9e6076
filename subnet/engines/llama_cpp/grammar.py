"""Output that must fit a JSON schema, by llguidance: which tokens may come next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from subnet.errors import InvalidRequest

_LONGEST_SCHEMA = 256 * 1024


class Grammars:
    """Makes the grammars of one model. `tokenize` is used for text that a schema leaves no choice about."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        control: Collection[int],
        end_tokens: Collection[int],
        tokenize: Callable[[str], list[int]],
    ) -> None:
        self._size = len(pieces)
        vocabulary = _Vocabulary(list(pieces), sorted(control), min(end_tokens), tokenize)
        self._tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=sorted(end_tokens))

    def json(self, schema: str, output: Sequence[int]) -> Grammar:
        """The grammar after `output`. Raises InvalidRequest for a schema it cannot follow, or output that breaks it.
        Takes up to a second for a large schema, without the interpreter lock."""
        if len(schema) > _LONGEST_SCHEMA:
            raise InvalidRequest(f"a schema has {_LONGEST_SCHEMA} characters at most", param="response_format")
        try:
            matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_json_schema(schema), log_level=0)
        except ValueError as error:
            raise _unusable(str(error)) from error
        if matcher.is_error():
            raise _unusable(_reason(matcher))
        if output and not matcher.consume_tokens(list(output)):
            raise InvalidRequest("the tokens delivered so far do not fit the schema", param="response_format")
        return Grammar(matcher, self._size)


class Grammar:
    """Where one choice is in its grammar."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._size = size

    def allowed(self) -> NDArray[np.bool_]:
        """For each token whether it may come next, shape (vocab,). Raises InvalidRequest for a schema
        whose ways to go on have become too many."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise _unusable(_reason(self._matcher))
        return np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)

    def append(self, token: int) -> None:
        """Raises InvalidRequest for a token that was not allowed."""
        if not self._matcher.consume_token(token):
            raise _unusable(_reason(self._matcher))


class _Vocabulary:
    """What llguidance asks of a tokenizer; the names are its."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], special: list[int], end: int, tokenize: Callable[[str], list[int]]) -> None:
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = end
        self._tokenize = tokenize

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenize(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _unusable(reason: str) -> InvalidRequest:
    return InvalidRequest(f"the schema is not usable: {reason}", param="response_format")


def _reason(matcher: LLMatcher) -> str:
    """Its errors go on for pages, with the state and the grammar: the first line says what is wrong."""
    return matcher.get_error().strip().partition("\n")[0][:300]
