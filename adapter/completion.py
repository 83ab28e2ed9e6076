"""The way of a request: messages -> prompt -> tensor -> session -> deltas -> events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from adapter.aside import aside
from adapter.events import Event, Used
from adapter.models import Model, Models
from adapter.schema.messages import Message
from adapter.schema.requests import ChatCompletionRequest
from adapter.schema.responses import PromptTokensDetails, Usage
from subnet.client import SessionManager
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
        self.ledger: Ledger | None = None
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

    async def events(self, sessions: SessionManager) -> AsyncGenerator[Event, None]:
        """Closing the generator cancels the work on the node, and so does the end of the last choice.

        Raises SubnetError.
        """
        last: list[Event] = []
        async with sessions.session(model=self.model.card.id, key=self.key) as session:
            deltas = session.generate(self.prompt, self.sampling, choices=len(self._choices), text=self.text)
            async with aclosing(deltas):
                async for delta in deltas:
                    self.ledger = session.ledger
                    last = self._take(delta)
                    if all(choice.finished for choice in self._choices):
                        break
                    for event in last:
                        yield event
                else:
                    raise EngineFailed("the answer ended without a finish reason")
        for event in last:
            yield event
        yield Used(self.usage, () if self.ledger is None else tuple(self.ledger.nodes))

    def _take(self, delta: Delta) -> list[Event]:
        self._cached = max(self._cached, delta.cached_tokens)
        return self._choices[delta.choice].take(delta)


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
