"""One choice that llama-server writes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from subnet.engines.llama_server.api import Part, Probability, likeliest, request
from subnet.engines.llama_server.split import Tokens, Unreadable, Vocabulary
from subnet.engines.remote.answer import Answer
from subnet.engines.remote.pieces import pieces
from subnet.errors import EngineFailed, NodeLost, WireError
from subnet.generation import FinishReason, Job, TokenLogprobs
from subnet.http.client import HttpClient

PATH = "/completion"
# How many of the likeliest tokens are asked for at first, where the one that was drawn is looked for.
_LIKELIEST = 64
# How many tokens are drawn anew, and how many may be needed to complete a character.
_ANEW = 4
_BEYOND = 3


class Server:
    """What all choices have in common. `context` is the size of a slot in tokens."""

    def __init__(self, http: HttpClient, vocabulary: Vocabulary, context: int, counted: bool) -> None:
        self.http = http
        self.vocabulary = vocabulary
        self.context = context
        self.counted = counted
        self.harmless = next((token for token, piece in enumerate(vocabulary.pieces) if piece == b"a"), 0)


class Choice:
    """Goes into `answer`. `limits` are the fields of the request for its grammar.

    A stream whose ids cannot be read, because bytes came that are no text, or because it was cut within a character, is
    taken up after the last ones that could: a few tokens are drawn anew, unstreamed, which tells all ids. A grammar
    knows no such bytes, and its state would be lost: with one, a few tokens more are asked for than are wanted.
    """

    def __init__(self, server: Server, job: Job, answer: Answer, limits: dict[str, Any]) -> None:
        self._server = server
        self._job = job
        self._answer = answer
        self._limits = limits
        self._held: list[int] = []
        self._held_scores: list[TokenLogprobs] | None = None

    async def run(self) -> None:
        while not self._answer.finished:
            try:
                await self._stream()
            except Unreadable:
                await self._draw_anew()

    async def _stream(self) -> None:
        tokens = Tokens(self._server.vocabulary, self._server.counted)
        beyond = _BEYOND if self._limits else 0
        body = self._request(self._answer.left + beyond) | {"stream": True, "return_progress": True}
        async with aclosing(pieces(self._server.http, PATH, body, Part)) as parts:
            async for part in parts:
                if part.prompt_progress is not None:
                    self._progress(part)
                elif part.stop:
                    self._end(part, tokens)
                else:
                    await self._more(part, tokens)
                    if self._answer.finished:
                        return
        if not self._answer.finished:
            raise NodeLost(f"{self._server.http.peer} closed the stream in the middle of an answer")

    def _progress(self, part: Part) -> None:
        assert part.prompt_progress is not None
        if not self._answer.tokens:
            self._answer.cached = part.prompt_progress.cache
            self._answer.sign()

    async def _more(self, part: Part, tokens: Tokens) -> None:
        self._release()
        if part.content and not part.tokens:
            raise EngineFailed(f"{self._server.http.peer} does not return token ids: it is too old for return_tokens")
        ids = tokens.decode(part.content, part.tokens, part.tokens_predicted)
        scores = await self._scores(ids, part)
        if part.content:
            self._answer.add(ids, scores)
        else:
            # Perhaps the token that ends the answer: only the last event says so.
            self._held, self._held_scores = ids, scores

    def _release(self) -> None:
        self._answer.add(self._held, self._held_scores)
        self._held = []

    def _end(self, part: Part, tokens: Tokens) -> None:
        ended = part.stop_type == "eos"
        if self._server.counted and part.tokens_predicted > tokens.known and not self._limits:
            raise Unreadable
        if not ended:
            self._release()
        self._answer.add([], [], "stop" if ended or part.stop_type == "word" else "length")

    async def _draw_anew(self) -> None:
        self._held = []
        if self._limits:
            raise EngineFailed(f"{self._server.http.peer} sent invalid UTF-8 although a grammar is set")
        body = self._request(min(self._answer.left, _ANEW))
        part = _part(await self._server.http.post(PATH, body))
        ended = part.stop_type == "eos"
        ids = part.tokens[:-1] if ended else part.tokens
        # None at all would be drawn for ever.
        reason: FinishReason | None = "stop" if ended else None if ids else "length"
        self._answer.add(ids, await self._scores(ids, part), reason)

    def _request(self, left: int) -> dict[str, Any]:
        answer = self._answer
        return request(self._job, answer.number, answer.tokens, left, self._server.context) | self._limits

    async def _scores(self, ids: Sequence[int], part: Part) -> list[TokenLogprobs] | None:
        """How likely each was: what the event says of its last ones, and what has to be asked for of the others."""
        width = self._job.sampling.logprobs
        if width is None:
            return None
        told = part.completion_probabilities
        if [each.id for each in told] == list(ids):
            return [each.logprobs(width) for each in told]
        before = [*self._job.prompt.tolist(), *self._answer.tokens]
        return [await self._score([*before, *ids[:at]], token, width) for at, token in enumerate(ids)]

    async def _score(self, before: Sequence[int], token: int, width: int) -> TokenLogprobs:
        found = await self._after(before, max(width, _LIKELIEST))
        if all(top.id != token for top in found.top_logprobs):
            found = await self._after(before, len(self._server.vocabulary.pieces))
        logprob = next((top.logprob for top in found.top_logprobs if top.id == token), None)
        return Probability(token, logprob, found.top_logprobs).logprobs(width)

    async def _after(self, before: Sequence[int], count: int) -> Probability:
        """The `count` likeliest tokens after those."""
        part = _part(await self._server.http.post(PATH, likeliest(before, self._server.harmless, count)))
        if not part.completion_probabilities:
            raise WireError(f"{self._server.http.peer} returned no probabilities")
        return part.completion_probabilities[0]


def _part(answer: Any) -> Part:
    try:
        return msgspec.convert(answer, Part)
    except msgspec.ValidationError as error:
        raise WireError(f"invalid response from llama-server: {error}") from error
