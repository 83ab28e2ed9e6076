"""One of the answers: its deltas -> events."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from itertools import repeat
from typing import NamedTuple

from adapter.decode import Detokenizer, StopScanner
from adapter.decode.events import CallArguments, CallBegun, Event, Finished, ReasoningDelta, TextDelta
from adapter.decode.logprobs import Teller, TokenLogprob
from adapter.tools import Parser
from adapter.tools.parts import Content, Part, Reasoning, ToolArguments, ToolCallBegin
from subnet.generation import Delta, FinishReason, TokenLogprobs


class ChoiceReader(ABC):
    """Gives the events of a choice to `emit`, which is to be set before anything is taken.

    `tokens` counts those that made the answer, None: all that were delivered did; `reasoning_tokens` those of them that
    nobody sees as content.
    """

    __slots__ = ("emit", "finished", "reasoning_tokens", "tokens")

    def __init__(self) -> None:
        self.emit: Emit = _unheard
        self.tokens: int | None = None
        self.reasoning_tokens = 0
        self.finished = False

    @abstractmethod
    def take(self, delta: Delta) -> None:
        """Emit what `delta` adds: nothing for a choice that is complete."""


class PlainReader(ChoiceReader):
    """Shows all text as it comes, and ends when the node does. This is the way that most tokens take, so it is a short
    one.

    All that is on it has slots: with hundreds of streams a token finds nothing of its stream in the processor's cache,
    and what it costs is how many places in memory it looks at.
    """

    __slots__ = ("_detokenizer", "_index")

    def __init__(self, index: int, detokenizer: Detokenizer) -> None:
        super().__init__()
        self._index = index
        self._detokenizer = detokenizer

    def take(self, delta: Delta) -> None:
        emit = self.emit
        if text := self._detokenizer.decode(delta.tokens):
            emit(TextDelta(self._index, text))
        if delta.finish_reason is not None:
            self.finished = True
            emit(Finished(self._index, delta.finish_reason))


class _Token(NamedTuple):
    """`start` and `end` are places in the text, in characters; a token that only begins a character ends in it."""

    start: int
    end: int
    id: int
    logprobs: TokenLogprobs | None


class AlignedReader(ChoiceReader):
    """Keeps tokens beside the text that they made, through all that looks at the text: a token belongs to the part in
    which it ends. Tokens of reasoning, of calls and of their marks have no logprobs to show.

    What is None is not wanted.
    """

    def __init__(
        self,
        index: int,
        detokenizer: Detokenizer,
        *,
        scanner: StopScanner | None = None,
        parser: Parser | None = None,
        teller: Teller | None = None,
        token_ids: bool = False,
    ) -> None:
        super().__init__()
        self.tokens: int = 0
        self._index = index
        self._detokenizer = detokenizer
        self._scanner = scanner
        self._parser = parser
        self._teller = teller
        self._ids: list[int] | None = [] if token_ids else None
        self._decoded = self._shown = 0
        self._waiting: deque[_Token] = deque()
        self._called = False
        self._in_content = True
        self._thinking = False

    def take(self, delta: Delta) -> None:
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
        self._waiting.append(_Token(start, self._decoded + self._detokenizer.holds, token, logprobs))
        self._show(text if self._scanner is None else self._scanner.decode(text))

    def _show(self, text: str) -> None:
        if self._parser is not None:
            for part in self._parser.decode(text):
                self._give(part)
        elif text:
            self._give(Content(text, len(text)))

    def _give(self, part: Part) -> None:
        self._shown += part.size
        tokens = self._taken(lambda token: token.end <= self._shown)
        self._in_content = isinstance(part, Content)
        match part:
            case Content():
                self._thinking = False
                self._say(part.text, tokens)
            case Reasoning():
                self._thinking = True
                self.emit(ReasoningDelta(self._index, part.text))
            case ToolCallBegin():
                self._called, self._thinking = True, False
                self.emit(CallBegun(self._index, part.index, "call_" + secrets.token_hex(12), part.name))
            case ToolArguments():
                self.emit(CallArguments(self._index, part.index, part.text))
        self.reasoning_tokens += len(tokens) if self._thinking else 0

    def _finish(self, reason: FinishReason) -> None:
        stopped = self._stopped
        if self._scanner is not None and not stopped:
            self._show(self._scanner.flush())
        if self._parser is not None:
            for part in self._parser.flush():
                self._give(part)
        # Of what a stop string cut off only the token counts of which a part is shown; else those of half a character.
        tokens = self._taken(lambda token: not stopped or token.start < self._shown)
        self._say("", tokens if self._in_content else [])
        self.finished = True
        self.emit(Finished(self._index, "tool_calls" if self._called and reason == "stop" else reason))

    def _say(self, text: str, tokens: list[_Token]) -> None:
        """Nothing where there is nothing to say."""
        logprobs, offsets, token_ids = self._told(tokens), self._offsets(tokens), self._given_ids()
        if text or logprobs or token_ids:
            self.emit(TextDelta(self._index, text, logprobs, token_ids, offsets))

    def _taken(self, wanted: Callable[[_Token], bool]) -> list[_Token]:
        tokens = []
        while self._waiting and wanted(self._waiting[0]):
            tokens.append(self._waiting.popleft())
        if self._ids is not None:
            self._ids += [token.id for token in tokens]
        return tokens

    def _told(self, tokens: list[_Token]) -> list[TokenLogprob] | None:
        if self._teller is None:
            return None
        return [self._teller.told(token.id, token.logprobs) for token in tokens if token.logprobs is not None]

    def _offsets(self, tokens: list[_Token]) -> list[int] | None:
        return None if self._teller is None else [token.start for token in tokens if token.logprobs is not None]

    def _given_ids(self) -> list[int] | None:
        """Those since the last time. None where they are not wanted."""
        if self._ids is None:
            return None
        given, self._ids = self._ids, []
        return given


Emit = Callable[[Event], None]


def _unheard(event: Event) -> None:
    raise AssertionError("emit was not set before the first delta")
