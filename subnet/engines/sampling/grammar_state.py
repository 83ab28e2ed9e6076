"""Grammar-constrained sampling with llguidance: determines which tokens may come next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from subnet.errors import InvalidRequest
from subnet.generation import Grammar
from subnet.node_info import GrammarKind
from subnet.panics import LibraryPanic, panics_as_errors

_MAX_TEXT_LENGTH = 256 * 1024


def _json_schema_grammar(schema: str) -> str:
    # The format of Python's json.dumps, which models know well. Small models get stuck in flexible whitespace: of 24
    # answers of the demo model, 10 ended within 120 tokens with flexible whitespace, 12 without any, 15 like this.
    return LLMatcher.grammar_from_json_schema(
        schema, overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    )


_CONVERTERS: dict[GrammarKind, Callable[[str], str]] = {
    "json_schema": _json_schema_grammar,
    "regex": LLMatcher.grammar_from_regex,
    "lark": LLMatcher.grammar_from_lark,
}


class GrammarCompiler:
    """Compiles grammars for the vocabulary of a model.

    `pieces[i]` is the bytes of token i. `tokenize` is applied to text that a grammar allows no alternative to.
    """

    kinds = tuple(_CONVERTERS)

    def __init__(
        self,
        pieces: Sequence[bytes],
        control_tokens: Collection[int],
        end_tokens: Collection[int],
        tokenize: Callable[[str], list[int]],
    ) -> None:
        self._size = len(pieces)
        vocabulary = _LLGuidanceVocabulary(list(pieces), sorted(control_tokens), min(end_tokens), tokenize)
        with panics_as_errors:
            self._tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=sorted(end_tokens))

    def compile(self, grammar: Grammar, output: Sequence[int]) -> GrammarState:
        """Return the state of `grammar` after `output`, the tokens generated so far.

        Takes up to a second for a large grammar, during which the GIL is released. Raises InvalidRequest for an invalid
        grammar, or if `output` does not match it.
        """
        if len(grammar.text) > _MAX_TEXT_LENGTH:
            raise InvalidRequest(
                f"Invalid value for 'grammar': expected at most {_MAX_TEXT_LENGTH} characters, but got "
                f"{len(grammar.text)}.",
                param="grammar",
            )
        try:
            with panics_as_errors:
                matcher = LLMatcher(self._tokenizer, _CONVERTERS[grammar.kind](grammar.text), log_level=0)
        except (ValueError, LibraryPanic) as error:
            raise _invalid_grammar(str(error)) from error
        if matcher.is_error():
            raise _invalid_grammar(_error_line(matcher))
        with panics_as_errors:
            is_matched = not output or matcher.consume_tokens(list(output))
        if not is_matched:
            raise InvalidRequest(
                "Invalid value for 'grammar': the tokens delivered so far do not match it.", param="grammar"
            )
        return GrammarState(matcher, self._size)


class GrammarState:
    """Position of one choice in its grammar."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._size = size

    def allowed_tokens(self) -> NDArray[np.bool_]:
        """Return a mask of the tokens that may come next, shape (vocab,).

        Raises InvalidRequest if the grammar has become too ambiguous to continue.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise _invalid_grammar(_error_line(self._matcher))
        return np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)

    @property
    def is_finished(self) -> bool:
        """True if the output is complete and no token may follow."""
        return self._matcher.is_stopped()

    def append(self, token: int) -> None:
        """Advance the state by `token`. Raises InvalidRequest if the token is not allowed."""
        if not self._matcher.consume_token(token):
            raise _invalid_grammar(_error_line(self._matcher))


class _LLGuidanceVocabulary:
    """Tokenizer interface that llguidance requires; it prescribes the attribute names."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], special: list[int], end: int, tokenize: Callable[[str], list[int]]) -> None:
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = end
        self._tokenize = tokenize

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenize(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _invalid_grammar(reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for 'grammar': {reason}", param="grammar")


def _error_line(matcher: LLMatcher) -> str:
    """Return the first line of the matcher's error. The rest, the state and the grammar, can be pages long."""
    return matcher.get_error().strip().partition("\n")[0][:300]
