"""Generation of one choice by llama-server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from subnet.engines.llama_server.llama_server_api import (
    CompletionEvent,
    Probability,
    build_request,
    build_top_tokens_request,
)
from subnet.engines.llama_server.token_recovery import TokenRecovery, UnrecoverableTokens, Vocabulary
from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.remote_model import text_token
from subnet.engines.remote.stream_events import stream_events
from subnet.errors import EngineFailed, ResponseLost, WireError
from subnet.generation import FinishReason, Job, TokenLogprobs
from subnet.http.client import HttpClient

PATH = "/completion"
# Number of most likely tokens to request at first when the logprob of a drawn token is missing.
_TOP_TOKENS = 64
# Number of tokens to redraw, and maximum number of extra tokens to complete a character.
_REDRAW_TOKENS = 4
_EXTRA_TOKENS = 3


class ServerInfo:
    """Properties of the server that all choices share.

    `context_length` is the size of a slot, in tokens. For `exact_count` see TokenRecovery. `text_token` is any
    token that is text.
    """

    def __init__(self, http: HttpClient, vocabulary: Vocabulary, context_length: int, exact_count: bool) -> None:
        self.http = http
        self.vocabulary = vocabulary
        self.context_length = context_length
        self.exact_count = exact_count
        self.text_token = text_token(vocabulary.pieces)


class Choice:
    """Generates one choice into `output`. `grammar_fields` are the request fields for its grammar.

    The ids of a stream cannot always be recovered: not if the bytes are invalid UTF-8, nor if the stream ends inside a
    character. Then generation restarts after the last known id, and a few tokens are drawn again without streaming,
    which returns all ids. With a grammar the restart would lose the grammar's state. But a grammar rules out invalid
    UTF-8, so it is enough to request a few extra tokens, which complete the last character.
    """

    def __init__(self, server: ServerInfo, job: Job, output: ChoiceOutput, grammar_fields: dict[str, Any]) -> None:
        self._server = server
        self._job = job
        self._output = output
        self._grammar_fields = grammar_fields
        self._pending: list[int] = []
        self._pending_logprobs: list[TokenLogprobs] | None = None

    async def run(self) -> None:
        while not self._output.finished:
            try:
                await self._stream()
            except UnrecoverableTokens:
                await self._redraw()

    async def _stream(self) -> None:
        recovery = TokenRecovery(self._server.vocabulary, self._server.exact_count)
        extra = _EXTRA_TOKENS if self._grammar_fields else 0
        body = self._build_request(self._output.remaining + extra) | {"stream": True, "return_progress": True}
        keep_alive = self._output.keep_alive
        async with aclosing(stream_events(self._server.http, PATH, body, CompletionEvent, keep_alive)) as events:
            async for event in events:
                if event.prompt_progress is not None:
                    self._report_progress(event)
                elif event.stop:
                    self._finish(event, recovery)
                else:
                    await self._add_event(event, recovery)
                    if self._output.finished:
                        return
        if not self._output.finished:
            raise ResponseLost(f"{self._server.http.peer} closed the stream in the middle of an answer")

    def _report_progress(self, event: CompletionEvent) -> None:
        assert event.prompt_progress is not None
        if not self._output.tokens:
            self._output.cached_tokens = event.prompt_progress.cache
            self._output.keep_alive()

    async def _add_event(self, event: CompletionEvent, recovery: TokenRecovery) -> None:
        self._flush_pending()
        if event.content and not event.tokens:
            raise EngineFailed(f"{self._server.http.peer} does not return token ids: it is too old for return_tokens")
        ids = recovery.decode(event.content, event.tokens, event.tokens_predicted)
        logprobs = await self._logprobs(ids, event)
        if event.content:
            self._output.add(ids, logprobs)
        else:
            # It may be the token that ends the answer, which only the last event tells.
            self._pending, self._pending_logprobs = ids, logprobs

    def _flush_pending(self) -> None:
        self._output.add(self._pending, self._pending_logprobs)
        self._pending = []

    def _finish(self, event: CompletionEvent, recovery: TokenRecovery) -> None:
        stopped_at_eos = event.stop_type == "eos"
        if self._server.exact_count and event.tokens_predicted > recovery.token_count and not self._grammar_fields:
            raise UnrecoverableTokens
        if not stopped_at_eos:
            self._flush_pending()
        self._output.add([], [], "stop" if stopped_at_eos or event.stop_type == "word" else "length")

    async def _redraw(self) -> None:
        self._pending = []
        if self._grammar_fields:
            raise EngineFailed(f"{self._server.http.peer} sent invalid UTF-8 although a grammar is set")
        body = self._build_request(min(self._output.remaining, _REDRAW_TOKENS))
        event = _to_event(await self._server.http.post(PATH, body))
        stopped_at_eos = event.stop_type == "eos"
        ids = event.tokens[:-1] if stopped_at_eos else event.tokens
        # Without a token or a finish reason, the loop would not end.
        finish_reason: FinishReason | None = "stop" if stopped_at_eos else None if ids else "length"
        self._output.add(ids, await self._logprobs(ids, event), finish_reason)

    def _build_request(self, remaining: int) -> dict[str, Any]:
        context_length = self._server.context_length
        return build_request(self._job, self._output, remaining, context_length) | self._grammar_fields

    async def _logprobs(self, ids: Sequence[int], event: CompletionEvent) -> list[TokenLogprobs] | None:
        """Return the logprobs of `ids`, from the event if it has them for all ids, else from separate requests."""
        width = self._job.sampling.logprobs
        if width is None:
            return None
        probabilities = event.completion_probabilities
        if [probability.id for probability in probabilities] == list(ids):
            return [probability.logprobs(width) for probability in probabilities]
        preceding = [*self._job.prompt.tolist(), *self._output.tokens]
        return [await self._score_token([*preceding, *ids[:at]], token, width) for at, token in enumerate(ids)]

    async def _score_token(self, preceding: Sequence[int], token: int, width: int) -> TokenLogprobs:
        tops = await self._top_tokens(preceding, max(width, _TOP_TOKENS))
        if all(top.id != token for top in tops):
            tops = await self._top_tokens(preceding, len(self._server.vocabulary.pieces))
        logprob = next((top.logprob for top in tops if top.id == token), None)
        return Probability(token, logprob, tops).logprobs(width)

    async def _top_tokens(self, preceding: Sequence[int], count: int) -> tuple[Probability, ...]:
        """Return the `count` most likely tokens after `preceding`."""
        body = build_top_tokens_request(preceding, self._server.text_token, count)
        event = _to_event(await self._server.http.post(PATH, body))
        if not event.completion_probabilities:
            raise WireError(f"{self._server.http.peer} returned no probabilities")
        return event.completion_probabilities[0].top_logprobs


def _to_event(response: Any) -> CompletionEvent:
    try:
        return msgspec.convert(response, CompletionEvent)
    except msgspec.ValidationError as error:
        raise WireError(f"invalid response from llama-server: {error}") from error
