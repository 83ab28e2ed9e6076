"""Conversion of the deltas of a choice to events."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import NamedTuple

from adapter.decode import Detokenizer
from adapter.decode.events import CallArguments, CallStarted, Event, Finished, ReasoningDelta, TextDelta
from adapter.decode.token_logprobs import LogprobFormatter, TokenLogprob
from adapter.tools import Parser
from adapter.tools.reading.parts import Content, Part, Reasoning, ToolArguments, ToolCallBegin
from subnet.aio import Sink
from subnet.generation import Delta, FinishReason, TokenLogprobs
from subnet.stop_scanner import StopScanner


class ChoiceReader(ABC):
    """Passes the events of a choice to `emit`, which must be set before the first delta.

    `tokens` counts the tokens of the answer; None means all that were delivered. `reasoning_tokens` counts those of
    them that are reasoning.
    """

    __slots__ = ("emit", "finished", "reasoning_tokens", "tokens")

    def __init__(self) -> None:
        self.emit: Sink[Event] = _no_sink
        self.tokens: int | None = None
        self.reasoning_tokens = 0
        self.finished = False

    @abstractmethod
    def feed(self, delta: Delta) -> None:
        """Emit the events of `delta`, or none if the choice is complete."""


class TextChoiceReader(ChoiceReader):
    """Reader of a choice without stop strings, tools, reasoning or logprobs: all text is content.

    This is the path of most tokens, so it is short, and its objects have slots. With hundreds of streams none of their
    memory is in the processor's cache, so the cost of a token is the number of memory locations it touches.
    """

    __slots__ = ("_detokenizer", "_index")

    def __init__(self, index: int, detokenizer: Detokenizer) -> None:
        super().__init__()
        self._index = index
        self._detokenizer = detokenizer

    def feed(self, delta: Delta) -> None:
        emit = self.emit
        if text := self._detokenizer.decode(delta.tokens):
            emit(TextDelta(self._index, text))
        if delta.finish_reason is not None:
            self.finished = True
            emit(Finished(self._index, delta.finish_reason))


class _Token(NamedTuple):
    """Token with its position in the text, in characters. A token that ends within a character includes it."""

    start: int
    end: int
    id: int
    logprobs: TokenLogprobs | None


class FullChoiceReader(ChoiceReader):
    """Reader of a choice with stop strings, tools, reasoning, logprobs or token ids. Those that are None are off.

    Tokens are kept aligned with their text while the scanner and the parser hold it back: a token belongs to the part
    in which it ends. Tokens of reasoning, tool calls and their marks have no logprobs.
    """

    def __init__(
        self,
        index: int,
        detokenizer: Detokenizer,
        *,
        scanner: StopScanner | None = None,
        parser: Parser | None = None,
        formatter: LogprobFormatter | None = None,
        token_ids: bool = False,
    ) -> None:
        super().__init__()
        self.tokens: int = 0
        self._index = index
        self._detokenizer = detokenizer
        self._scanner = scanner
        self._parser = parser
        self._formatter = formatter
        self._ids: list[int] | None = [] if token_ids else None
        self._decoded = self._released = 0
        self._pending: deque[_Token] = deque()
        self._has_calls = False
        self._in_content = True
        self._in_reasoning = False

    def feed(self, delta: Delta) -> None:
        if self.finished:
            return None
        for token, logprobs in zip(delta.tokens, delta.logprobs or repeat(None), strict=False):
            self._read(token, logprobs)
            if self._stopped:
                return self._finish("stop")
        if delta.finish_reason is not None:
            self._finish(delta.finish_reason)
        return None

    @property
    def _stopped(self) -> bool:
        return self._scanner is not None and self._scanner.stopped is not None

    def _read(self, token: int, logprobs: TokenLogprobs | None) -> None:
        self.tokens += 1
        text = self._detokenizer.decode((token,))
        start, self._decoded = self._decoded, self._decoded + len(text)
        self._pending.append(_Token(start, self._decoded + self._detokenizer.has_incomplete_character, token, logprobs))
        self._parse(text if self._scanner is None else self._scanner.decode(text))

    def _parse(self, text: str) -> None:
        if self._parser is not None:
            for part in self._parser.decode(text):
                self._release(part)
        elif text:
            self._release(Content(text, len(text)))

    def _release(self, part: Part) -> None:
        self._released += part.size
        tokens = self._pop_tokens(lambda token: token.end <= self._released)
        self._in_content = isinstance(part, Content)
        match part:
            case Content():
                self._in_reasoning = False
                self._emit_text(part.text, tokens)
            case Reasoning():
                self._in_reasoning = True
                self.emit(ReasoningDelta(self._index, part.text))
            case ToolCallBegin():
                self._has_calls, self._in_reasoning = True, False
                self.emit(CallStarted(self._index, part.index, "call_" + secrets.token_hex(12), part.name))
            case ToolArguments():
                self.emit(CallArguments(self._index, part.index, part.text))
        self.reasoning_tokens += len(tokens) if self._in_reasoning else 0

    def _finish(self, reason: FinishReason) -> None:
        stopped = self._stopped
        if self._scanner is not None and not stopped:
            self._parse(self._scanner.flush())
        if self._parser is not None:
            for part in self._parser.flush(cut=stopped or reason == "length"):
                self._release(part)
        # After a stop string only tokens with text before it count, else also those of an incomplete character.
        tokens = self._pop_tokens(lambda token: not stopped or token.start < self._released)
        self._emit_text("", tokens if self._in_content else [])
        self.finished = True
        final = "tool_calls" if self._has_calls and reason == "stop" else reason
        self.emit(Finished(self._index, final, self._scanner.stopped if self._scanner is not None else None))

    def _emit_text(self, text: str, tokens: list[_Token]) -> None:
        logprobs, offsets, token_ids = self._logprobs(tokens), self._offsets(tokens), self._pop_ids()
        if text or logprobs or token_ids:
            self.emit(TextDelta(self._index, text, logprobs, token_ids, offsets))

    def _pop_tokens(self, condition: Callable[[_Token], bool]) -> list[_Token]:
        tokens = []
        while self._pending and condition(self._pending[0]):
            tokens.append(self._pending.popleft())
        if self._ids is not None:
            self._ids += [token.id for token in tokens]
        return tokens

    def _logprobs(self, tokens: list[_Token]) -> list[TokenLogprob] | None:
        if self._formatter is None:
            return None
        return [self._formatter.format(token.id, token.logprobs) for token in tokens if token.logprobs is not None]

    def _offsets(self, tokens: list[_Token]) -> list[int] | None:
        return None if self._formatter is None else [token.start for token in tokens if token.logprobs is not None]

    def _pop_ids(self) -> list[int] | None:
        if self._ids is None:
            return None
        ids, self._ids = self._ids, []
        return ids


def _no_sink(event: Event) -> None:
    raise AssertionError("emit was not set before the first delta")
