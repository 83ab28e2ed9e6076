"""The way of an answer: prompt -> session -> deltas -> events. See preparation.py for what is before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from adapter.answer import Answer
from adapter.events import Event, TextDelta, Used
from adapter.models import Model
from adapter.naming import naming
from adapter.schema.responses import CompletionTokensDetails, PromptTokensDetails, Usage
from adapter.view import View
from subnet.client import Session, SessionManager
from subnet.client.ledger import Ledger
from subnet.errors import EngineFailed
from subnet.generation import Delta, Sampling
from subnet.node_info import ModelCard
from subnet.tensors import TokenIds


class Completion(Answer):
    """One answer of the token lane in the making.

    `first` is the index of its first choice. `names` are the request's own for what nodes refuse by theirs.
    """

    __slots__ = (
        "_cached",
        "_echo",
        "_emit",
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
        view: View,
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
        self._cached = 0
        self._used: Usage | None = None
        self._emit: Callable[[Event], None] = lambda event: None

    @property
    def usage(self) -> Usage:
        # Of a complete answer it is asked for three times.
        return self._used or self._so_far()

    def _so_far(self) -> Usage:
        prompt, completion = len(self.prompt), sum(choice.tokens for choice in self.choices)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._cached),
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
        self, sessions: SessionManager, emit: Callable[[Event], None], *, patient: Callable[[], bool] = lambda: True
    ) -> None:
        """The end of the last choice cancels the work on the node, too."""
        self._emit = emit
        name = self.model.card.id
        async with sessions.session(name, key=self.key, priority=self.priority, patient=patient) as self._session:
            run = self._session.run(self.prompt, self.sampling, self._take, choices=len(self.choices), text=self.text)
            with suppress(_Complete), naming(self._names):
                await run
        if not all(choice.finished for choice in self.choices):
            raise EngineFailed("the answer ended without a finish reason")
        assert self.ledger is not None
        self._used = self._so_far()
        emit(Used(self._used, tuple(self.ledger.nodes)))

    def _take(self, delta: Delta) -> None:
        if self._echo:
            self._show_echo()
        if delta.cached_tokens:
            self._cached = max(self._cached, delta.cached_tokens)
        choice = self.choices[delta.choice]
        choice.take(delta, self._emit)
        if choice.finished and all(choice.finished for choice in self.choices) and self._goes_on():
            raise _Complete

    def _show_echo(self) -> None:
        echo, self._echo = self._echo, ""
        for index in range(len(self.choices)):
            self._emit(TextDelta(self._first + index, echo))

    def _goes_on(self) -> bool:
        return self.ledger is not None and not self.ledger.complete


class _Complete(Exception):
    """Every choice is complete for its client, whatever the node has still to say."""
