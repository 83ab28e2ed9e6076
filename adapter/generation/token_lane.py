"""A generation on the token lane: prompt -> session -> deltas -> events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapter.decode.choice import TextChoiceReader
from adapter.decode.events import Event, TextDelta, Used
from adapter.decode.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from adapter.generation.base import Generation
from adapter.generation.model_registry import Model
from adapter.generation.output_options import OutputOptions
from adapter.generation.param_names import renamed
from subnet import Session, SessionManager
from subnet.client.ledger.base import Ledger
from subnet.client.ledger.token import TokenLedger
from subnet.errors import EngineFailed, RequestError
from subnet.generation import Delta, Sampling
from subnet.node_info import ModelCard
from subnet.tensors import TokenIds


class TokenGeneration(Generation):
    """One answer on the token lane.

    `first` is the index of its first choice. `names` are the request's own for what nodes refuse by theirs.
    """

    __slots__ = (
        "_echo",
        "_first",
        "_names",
        "_session",
        "_used",
        "choices",
        "key",
        "model",
        "priority",
        "prompt",
        "sampling",
        "text",
    )

    def __init__(
        self,
        model: Model,
        text: str,
        prompt: TokenIds,
        sampling: Sampling,
        view: OutputOptions,
        choices: int = 1,
        key: str | None = None,
        *,
        priority: int = 0,
        first: int = 0,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self.text = text
        self.prompt = prompt
        self.sampling = sampling
        self.key = key
        self.priority = priority
        self.choices = [model.reader(first + index, view) for index in range(choices)]
        self._first = first
        self._names = names or {}
        self._echo = view.echo
        self._session: Session | None = None
        self._used: Usage | None = None

    @property
    def usage(self) -> Usage:
        # Of a complete answer it is asked for three times.
        return self._used or self._so_far()

    def _so_far(self) -> Usage:
        ledger = self.ledger
        prompt, completion, cached = len(self.prompt), 0, 0
        if isinstance(ledger, TokenLedger) and not self._echo:
            cached = ledger.cached_tokens
            for choice, delivered in zip(self.choices, ledger.choices, strict=True):
                completion += len(delivered.tokens) if choice.tokens is None else choice.tokens
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
            completion_tokens_details=CompletionTokensDetails(sum(choice.reasoning_tokens for choice in self.choices)),
        )

    @property
    def ledger(self) -> Ledger[Any] | None:
        return None if self._session is None else self._session.ledger

    @property
    def card(self) -> ModelCard:
        return self.model.card

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    async def run(
        self, sessions: SessionManager, emit: Callable[[Event], None], *, may_queue: Callable[[], bool] = lambda: True
    ) -> None:
        """The end of the last choice cancels the work on the node, too."""
        take, count = self._taker(emit), len(self.choices)
        name = self.model.card.id
        async with sessions.session(name, key=self.key, priority=self.priority, may_queue=may_queue) as self._session:
            try:
                await self._session.run(self.prompt, self.sampling, take, choices=count, text=self.text)
            except _Complete:
                pass
            except RequestError as error:
                raise renamed(error, self._names) from error.__cause__
        if not all(choice.finished for choice in self.choices):
            raise EngineFailed("the generation ended without a finish reason")
        assert self.ledger is not None
        self._used = self._so_far()
        emit(Used(self._used, tuple(self.ledger.nodes)))

    def _taker(self, emit: Callable[[Event], None]) -> Callable[[Delta], None]:
        """What takes the deltas; it is the reader itself of an answer that ends when the node does."""
        for choice in self.choices:
            choice.emit = emit
        alone = self.choices[0] if len(self.choices) == 1 and not self._echo else None
        return alone.feed if isinstance(alone, TextChoiceReader) else self._take

    def _take(self, delta: Delta) -> None:
        if self._echo:
            self._show_echo()
        choice = self.choices[delta.choice]
        choice.feed(delta)
        if choice.finished and all(choice.finished for choice in self.choices) and self._goes_on():
            raise _Complete

    def _show_echo(self) -> None:
        for index, choice in enumerate(self.choices, self._first):
            choice.emit(TextDelta(index, self._echo))
        self._echo = ""

    def _goes_on(self) -> bool:
        return self.ledger is not None and not self.ledger.complete


class _Complete(Exception):
    """Every choice is complete for its client, whatever the node has still to say."""
