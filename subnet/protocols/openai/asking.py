"""A conversation's answer, with as many requests as the server needs for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from subnet.chat import ChatRequest, ChatUsage, EmitChat
from subnet.errors import InvalidRequest, NodeLost
from subnet.http.client import Http
from subnet.protocols.openai.answer import Answer
from subnet.protocols.openai.choice import Choice
from subnet.protocols.openai.models import Models
from subnet.protocols.openai.quirks import Quirks
from subnet.protocols.openai.request import body_of, reseeded
from subnet.protocols.openai.usage import summed

# What one request used, and the choices that the server left out of it.
Used = tuple[ChatUsage | None, list[Choice]]

# For usage and [DONE], once every choice has its end. In seconds.
_TRAILING = 2.0


class Asking:
    """Remembers whether the server takes `n` and `stream_options`, which is found out by trying. `heard` is when it
    last said anything, by time.monotonic.
    """

    def __init__(self, models: Models, http: Http, quirks: Quirks) -> None:
        self.heard = 0.0
        self._models = models
        self._http = http
        self._quirks = quirks
        self._single = quirks.single
        self._usage = True

    async def answer(self, request: ChatRequest, emit: EmitChat) -> ChatUsage | None:
        """All choices with one request, those that the server leaves out with one each; as Protocol.rpc_chat."""
        repeated = request.begun if self._quirks.repeats else ""
        logprobs = bool(request.body.get("logprobs"))
        missing = [Choice(number, begun=repeated, logprobs=logprobs) for number in request.choices]
        usages: list[ChatUsage | None] = []
        if len(missing) > 1 and not self._single:
            usage, missing = await self._together(request, missing, emit)
            self._single = bool(missing)
            usages = [usage]
        if missing:
            usages += [usage for usage, _ in await _all([self._asked(request, [choice], emit) for choice in missing])]
        return summed(usages)

    async def _together(self, request: ChatRequest, choices: list[Choice], emit: EmitChat) -> Used:
        try:
            return await self._asked(request, choices, emit)
        except InvalidRequest as error:
            if error.param != "n":
                raise
        return ChatUsage(prompt_tokens=0, completion_tokens=0), choices

    async def _asked(self, request: ChatRequest, choices: Sequence[Choice], emit: EmitChat) -> Used:
        model = self._models.theirs(request.model, self._quirks.model)
        body = body_of(request, self._quirks, model, choices=len(choices), usage=self._usage)
        if len(choices) == 1:
            body = reseeded(body, choices[0].number)
        try:
            return await self._posted(body, choices, emit)
        except InvalidRequest as error:
            if "stream_options" not in body or "stream_options" not in f"{error.param} {error.message}":
                raise
        self._usage = False
        del body["stream_options"]
        return await self._posted(body, choices, emit)

    async def _posted(self, body: dict[str, Any], choices: Sequence[Choice], emit: EmitChat) -> Used:
        answer = Answer(self._http.peer, choices, emit, self._http.refused)
        try:
            async with asyncio.timeout(None) as trailing:
                await self._read(body, answer, trailing)
        except (NodeLost, TimeoutError):
            # What is lost after the answer is no loss.
            if not answer.finished:
                raise
        return answer.usage, answer.end()

    async def _read(self, body: dict[str, Any], answer: Answer, trailing: asyncio.Timeout) -> None:
        async with self._http.events("/v1/chat/completions", body) as events:
            async for event in events:
                self.heard = time.monotonic()
                answer.take(event)
                if answer.done:
                    return
                if answer.finished and trailing.when() is None:
                    trailing.reschedule(asyncio.get_running_loop().time() + _TRAILING)
            answer.done = events.whole


async def _all(work: Sequence[Coroutine[Any, Any, Used]]) -> list[Used]:
    """All at once; the first that fails ends the others, and is what is raised."""
    if len(work) == 1:
        return [await work[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
