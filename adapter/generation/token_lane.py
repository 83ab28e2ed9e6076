"""Generation on the token lane: prompt -> session -> deltas -> events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapter.decode.choice import TextChoiceReader
from adapter.decode.events import Event, TextDelta, Used
from adapter.decode.usage import CompletionTokensDetails, PromptTokensDetails, Usage
from adapter.generation.base import Generation
from adapter.generation.model_registry import Model
from adapter.generation.output_options import OutputOptions
from adapter.generation.param_names import rename_param
from subnet import RequestState, Session, SessionManager
from subnet.client.ledger.base import Ledger
from subnet.client.ledger.token import TokenLedger
from subnet.errors import EngineFailed, RequestError
from subnet.generation import Delta, Sampling
from subnet.node_info import ModelCard
from subnet.tensors import TokenIds


class TokenGeneration(Generation):
    """Generation of one answer on the token lane.

    `text` is the prompt as text, and `prompt` its tokens. A node should have room for `room` new tokens (None: for
    max_tokens). `first` is the index of the first choice. `param_names` maps parameters, as errors of nodes name them,
    to those of the request. `relaxed` is as in Work. `limit` is the maximum number of new tokens that the client set.
    """

    __slots__ = (
        "_echo",
        "_final_usage",
        "_first",
        "_limit",
        "_param_names",
        "_relaxed",
        "_room",
        "_session",
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
        output: OutputOptions,
        choices: int = 1,
        key: str | None = None,
        *,
        room: int | None = None,
        priority: int = 0,
        first: int = 0,
        param_names: Mapping[str, str] | None = None,
        relaxed: Sequence[str] = (),
        limit: int | None = None,
    ) -> None:
        self.model = model
        self.text = text
        self.prompt = prompt
        self.sampling = sampling
        self.key = key
        self.priority = priority
        self._room = room
        self.choices = [model.reader(first + index, output, sampling.max_tokens, choices) for index in range(choices)]
        self._first = first
        self._param_names = param_names or {}
        self._relaxed = relaxed
        self._limit = limit
        self._echo = output.echo
        self._session: Session | None = None
        self._final_usage: Usage | None = None

    @property
    def relaxed(self) -> Sequence[str]:
        return self._relaxed

    @property
    def bounded_tokens(self) -> int | None:
        maximum = self.sampling.max_tokens
        return maximum if self._limit and maximum and maximum < self._limit else None

    @property
    def usage(self) -> Usage:
        # The usage of a complete answer is read three times.
        return self._final_usage or self._compute_usage()

    def _compute_usage(self) -> Usage:
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
        self, sessions: SessionManager, emit: Callable[[Event], None], state: RequestState | None = None
    ) -> None:
        """Run the generation. When its last choice is finished, the work on the node is cancelled if it still runs."""
        sink, count = self._create_sink(emit), len(self.choices)
        name, identity = self.model.card.id, self.model.identity
        async with sessions.session(
            name, key=self.key, priority=self.priority, state=state, identity=identity
        ) as self._session:
            try:
                await self._session.run(
                    self.prompt, self.sampling, sink, choices=count, text=self.text, room=self._room
                )
            except _AllChoicesFinished:
                pass
            except RequestError as error:
                raise rename_param(error, self._param_names) from error.__cause__
        if not all(choice.finished for choice in self.choices):
            raise EngineFailed("the generation ended without a finish reason")
        ledger = self.ledger
        assert ledger is not None
        self._final_usage = self._compute_usage()
        emit(Used(self._final_usage, tuple(ledger.nodes), ledger.replayed_tokens, diverged=ledger.diverged))

    def _create_sink(self, emit: Callable[[Event], None]) -> Callable[[Delta], None]:
        """Return the sink for the deltas.

        It is the reader itself if there is a single choice that only the node can end, and no echo.
        """
        for choice in self.choices:
            choice.emit = emit
        single = self.choices[0] if len(self.choices) == 1 and not self._echo else None
        return single.feed if isinstance(single, TextChoiceReader) else self._receive

    def _receive(self, delta: Delta) -> None:
        if self._echo:
            self._emit_echo()
        choice = self.choices[delta.choice]
        choice.feed(delta)
        if choice.finished and all(choice.finished for choice in self.choices) and self._is_node_running():
            raise _AllChoicesFinished

    def _emit_echo(self) -> None:
        for index, choice in enumerate(self.choices, self._first):
            choice.emit(TextDelta(index, self._echo))
        self._echo = ""

    def _is_node_running(self) -> bool:
        return self.ledger is not None and not self.ledger.complete


class _AllChoicesFinished(Exception):
    """Raised to end a session when all choices are finished, at stop strings for example, but the node still runs."""
