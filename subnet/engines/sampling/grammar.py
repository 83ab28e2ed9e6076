"""Output that must fit a grammar, by llguidance: which tokens may come next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from subnet.errors import InvalidRequest
from subnet.generation import Grammar
from subnet.node_info import GrammarKind

_LONGEST_TEXT = 256 * 1024


def _json(schema: str) -> str:
    # As Python's json.dumps writes, which models know well. Where any space may come, small ones get lost in it: of 24
    # answers of the default model within 120 tokens, 10 ended with flexible space, 12 without space, 15 like this.
    return LLMatcher.grammar_from_json_schema(
        schema, overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    )


_COMPILE: dict[GrammarKind, Callable[[str], str]] = {
    "json_schema": _json,
    "regex": LLMatcher.grammar_from_regex,
    "lark": LLMatcher.grammar_from_lark,
}


class Grammars:
    """Follows grammars in the tokens of a model. `tokenize` is used for text that a grammar leaves no choice about."""

    kinds = tuple(_COMPILE)

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

    def after(self, grammar: Grammar, output: Sequence[int]) -> GrammarState:
        """Where `output` leads in the grammar. Raises InvalidRequest for a grammar it cannot follow, or output that
        breaks it. Takes up to a second for a large one, without the interpreter lock."""
        if len(grammar.text) > _LONGEST_TEXT:
            raise InvalidRequest(
                f"Invalid value for 'grammar': expected at most {_LONGEST_TEXT} characters, but got "
                f"{len(grammar.text)}.",
                param="grammar",
            )
        try:
            matcher = LLMatcher(self._tokenizer, _COMPILE[grammar.kind](grammar.text), log_level=0)
        except ValueError as error:
            raise _unusable(str(error)) from error
        if matcher.is_error():
            raise _unusable(_reason(matcher))
        if output and not matcher.consume_tokens(list(output)):
            raise InvalidRequest(
                "Invalid value for 'grammar': the tokens delivered so far do not match it.", param="grammar"
            )
        return GrammarState(matcher, self._size)


class GrammarState:
    """Where one choice is in its grammar."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._size = size

    def allowed(self) -> NDArray[np.bool_]:
        """For each token whether it may come next, shape (vocab,). Raises InvalidRequest for a grammar
        whose ways to go on have become too many."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise _unusable(_reason(self._matcher))
        return np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)

    @property
    def ended(self) -> bool:
        """Whether nothing may follow."""
        return self._matcher.is_stopped()

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
    return InvalidRequest(f"Invalid value for 'grammar': {reason}", param="grammar")


def _reason(matcher: LLMatcher) -> str:
    """Its errors go on for pages, with the state and the grammar: the first line says what is wrong."""
    return matcher.get_error().strip().partition("\n")[0][:300]
