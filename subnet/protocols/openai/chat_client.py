"""Chat and text completions from one server, with as many HTTP requests as its API needs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from subnet.aio import Sink
from subnet.chat import ChatDelta, ChatRequest, ChatUsage, Endpoint
from subnet.errors import EndpointMissing, InvalidRequest, NodeLost
from subnet.http.client import HttpClient
from subnet.http.error_map import NotFound
from subnet.http.queue_watch import QueueWatch, QueueWatcher
from subnet.protocols.openai.chat_body import SEED_NAMES, build_body, offset_seed, with_own_seed
from subnet.protocols.openai.chat_response import ChatResponse, no_watch
from subnet.protocols.openai.model_catalog import ModelCatalog
from subnet.protocols.openai.openai_choice import Choice, TextChoice
from subnet.protocols.openai.quirks import Quirks
from subnet.protocols.openai.usage_reader import total_usage

_SEED = re.compile(r"\b(random_)?seed\b", re.IGNORECASE)

# Usage of one HTTP request, and the choices that its response left out.
Outcome = tuple[ChatUsage | None, list[Choice]]

# Minimum length of a prefix, in characters, that no continuation repeats by chance.
_MIN_REPEATED = 12
# Time to wait for usage and [DONE] once every choice has finished, in seconds.
_TRAILER_TIMEOUT = 2.0


class ChatClient:
    """Sends requests for chat and text completions.

    It remembers whether the server supports `n`, `stream_options` and, by model, seeds, which is found out by trying.
    `last_received` is the time of the last event, by time.monotonic; 0 before the first.
    """

    def __init__(self, models: ModelCatalog, http: HttpClient, quirks: Quirks, queue: QueueWatcher) -> None:
        self.last_received = 0.0
        self._queue = queue
        self._models = models
        self._http = http
        self._quirks = quirks
        self._single_choice = quirks.single_choice
        self._usage = True
        self._without_seeds: set[str] = set()

    async def complete(self, request: ChatRequest, emit: Sink[ChatDelta]) -> ChatUsage | None:
        """Generate all choices with one HTTP request, or one for each where the server does not support `n`.

        Returns and raises the same as Protocol.rpc_chat.
        """
        missing = [self._create_choice(request, number) for number in request.choices]
        usages: list[ChatUsage | None] = []
        if len(missing) > 1 and not self._single_choice:
            usage, missing = await self._complete_together(request, missing, emit)
            self._single_choice = bool(missing)
            usages = [usage]
        if missing:
            outcomes = await _gather([self._complete(request, [choice], emit) for choice in missing])
            usages += [usage for usage, _ in outcomes]
        return total_usage(usages)

    def _create_choice(self, request: ChatRequest, number: int) -> Choice:
        stops = _stop_strings(request) if self._quirks.keeps_stop else []
        if request.endpoint == "completions":
            return TextChoice(number, logprobs=request.body.get("logprobs") is not None, stops=stops)
        # A continuation that begins with all of a long prefix is the whole answer again.
        may_repeat = self._quirks.repeats_prefix or len(request.prefix) >= _MIN_REPEATED
        repeated = request.prefix if may_repeat else ""
        return Choice(number, repeated_prefix=repeated, logprobs=bool(request.body.get("logprobs")), stops=stops)

    async def _complete_together(self, request: ChatRequest, choices: list[Choice], emit: Sink[ChatDelta]) -> Outcome:
        try:
            return await self._complete(request, choices, emit)
        except InvalidRequest as error:
            if error.param != "n":
                raise
        return ChatUsage(prompt_tokens=0, completion_tokens=0), choices

    async def _complete(self, request: ChatRequest, choices: Sequence[Choice], emit: Sink[ChatDelta]) -> Outcome:
        while True:
            body = self._build(request, choices)
            try:
                return await self._post(request.endpoint, body, choices, emit)
            except InvalidRequest as error:
                if not self._adapt(request, body, f"{error.param} {error.message}"):
                    raise

    def _build(self, request: ChatRequest, choices: Sequence[Choice]) -> dict[str, Any]:
        model = self._models.upstream_name(request.model, self._quirks.model)
        if self._quirks.seeds and request.model not in self._without_seeds:
            request = with_own_seed(request)
        body = build_body(request, self._quirks, model, choices=len(choices), usage=self._usage)
        return offset_seed(body, choices[0].number, request.prefix) if len(choices) == 1 else body

    def _adapt(self, request: ChatRequest, body: dict[str, Any], error: str) -> bool:
        """Stop sending what the gateway added to a request and the server rejected; return False if that is nothing."""
        if "stream_options" in body and "stream_options" in error:
            self._usage = False
            return True
        has_own_seed = request.body.get("seed") is None and not body.keys().isdisjoint(SEED_NAMES)
        if has_own_seed and _SEED.search(error):
            self._without_seeds.add(request.model)
            return True
        return False

    async def _post(
        self, endpoint: Endpoint, body: dict[str, Any], choices: Sequence[Choice], emit: Sink[ChatDelta]
    ) -> Outcome:
        response = ChatResponse(self._http.peer, choices, emit, self._http.to_error, self)
        try:
            async with asyncio.timeout(None) as trailer_timeout:
                await self._read(endpoint, body, response, trailer_timeout)
        except NotFound as error:
            if endpoint == "chat/completions" or response.has_content:
                raise
            raise EndpointMissing(f"/v1/{endpoint}: {error.message}") from error
        except (NodeLost, TimeoutError):
            # A connection that is lost after the last finish reason loses nothing.
            if not response.finished:
                raise
        return response.usage, response.finish()

    async def _read(
        self, endpoint: Endpoint, body: dict[str, Any], response: ChatResponse, trailer_timeout: asyncio.Timeout
    ) -> None:
        with self._queue.watch(response.keep_alive) as queue_watch:
            response.on_event = partial(_after_event, queue_watch, trailer_timeout)
            try:
                await self._http.stream(f"/v1/{endpoint}", body, response)
            finally:
                # The watch refers to the response: this breaks the cycle.
                response.on_event = no_watch
        response.done = response.done or response.is_json


def _after_event(queue_watch: QueueWatch, trailer_timeout: asyncio.Timeout, response: ChatResponse) -> None:
    # A server may send headers and a role to a request that has yet to wait.
    if response.has_content or response.done:
        queue_watch.stop()
    if response.finished and trailer_timeout.when() is None:
        trailer_timeout.reschedule(asyncio.get_running_loop().time() + _TRAILER_TIMEOUT)


def _stop_strings(request: ChatRequest) -> list[str]:
    stop = request.body.get("stop")
    return [stop] if isinstance(stop, str) else [text for text in stop or () if isinstance(text, str)]


async def _gather(requests: Sequence[Coroutine[Any, Any, Outcome]]) -> list[Outcome]:
    """Run `requests` at the same time. The first error cancels the others, and is raised."""
    if len(requests) == 1:
        return [await requests[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(request) for request in requests]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
