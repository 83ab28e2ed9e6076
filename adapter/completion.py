"""The way of a request: messages -> prompt -> tensor -> session -> deltas -> events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from adapter.aside import aside
from adapter.events import Event, Used
from adapter.models import Model, Models
from adapter.schema.messages import Message
from adapter.schema.requests import ChatCompletionRequest
from adapter.schema.responses import PromptTokensDetails, Usage
from subnet.client import Session, SessionManager
from subnet.client.ledger import Ledger
from subnet.errors import ContextLengthExceeded, EngineFailed
from subnet.generation import Delta, Sampling
from subnet.tensors import TokenIds


class Completion:
    """One answer in the making. `usage`, and in `ledger` the nodes asked, hold at any time, also for a cut one."""

    def __init__(
        self,
        model: Model,
        text: str,
        prompt: TokenIds,
        sampling: Sampling,
        stops: tuple[str, ...],
        choices: int = 1,
        key: str | None = None,
    ) -> None:
        self.model = model
        self.text = text
        self.prompt = prompt
        self.sampling = sampling
        self.key = key
        self._choices = [model.reader(index, stops) for index in range(choices)]
        self._session: Session | None = None
        self._cached = 0

    @property
    def usage(self) -> Usage:
        prompt, completion = len(self.prompt), sum(choice.tokens for choice in self._choices)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._cached),
        )

    @property
    def ledger(self) -> Ledger | None:
        """None before nodes are asked."""
        return None if self._session is None else self._session.ledger

    async def run(self, sessions: SessionManager, emit: Callable[[Event], None]) -> None:
        """Emit the answer's events as they come. Cancelling the call cancels the work on the node, and the end of the
        last choice does.

        Raises SubnetError.
        """
        async with sessions.session(model=self.model.card.id, key=self.key) as self._session:
            run = self._session.run(
                self.prompt, self.sampling, self._taker(emit), choices=len(self._choices), text=self.text
            )
            with suppress(_Complete):
                await run
        if not all(choice.finished for choice in self._choices):
            raise EngineFailed("the answer ended without a finish reason")
        assert self.ledger is not None
        emit(Used(self.usage, tuple(self.ledger.nodes)))

    def _taker(self, emit: Callable[[Event], None]) -> Callable[[Delta], None]:
        choices = self._choices

        def take(delta: Delta) -> None:
            if delta.cached_tokens:
                self._cached = max(self._cached, delta.cached_tokens)
            choice = choices[delta.choice]
            choice.take(delta, emit)
            if choice.finished and all(choice.finished for choice in choices) and self._goes_on():
                raise _Complete

        return take

    def _goes_on(self) -> bool:
        return self.ledger is not None and bool(self.ledger.unfinished)


class _Complete(Exception):
    """Every choice is complete for its client, whatever the node has still to say."""


async def prepare(
    request: ChatCompletionRequest, models: Models, *, size: int = 0, default_max_tokens: int | None = None
) -> Completion:
    """Everything before a node is bothered, for a request of `size` bytes. Raises what `models.get` does,
    InvalidRequest (the template refuses the messages) and ContextLengthExceeded.
    """
    model = await models.get(request.model)
    text, prompt = await aside(size, _prompt, model, request.messages)
    room = _room(model.card.context_length, len(prompt), request)
    limit = request.limit or default_max_tokens
    sampling = Sampling(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        max_tokens=room if limit is None else min(limit, room),
        seed=request.seed,
        stop_tokens=model.card.stop_tokens,
    )
    return Completion(model, text, prompt, sampling, request.stops, key=request.key)


def _prompt(model: Model, messages: Sequence[Message]) -> tuple[str, TokenIds]:
    written = model.render(messages)
    return written.text, model.encode(written)


def _room(context: int, prompt: int, request: ChatCompletionRequest) -> int:
    """Tokens left for the answer."""
    limit = request.limit or 1
    if prompt + limit <= context:
        return context - prompt
    if prompt >= context:
        param = "messages"
        wanted = f"your messages resulted in {prompt} tokens. Please reduce the length of the messages."
    else:
        param = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
        wanted = (
            f"you requested {prompt + limit} tokens ({prompt} in the messages, {limit} in the completion)."
            " Please reduce the length of the messages or completion."
        )
    raise ContextLengthExceeded(
        f"This model's maximum context length is {context} tokens. However, {wanted}", param=param
    )
