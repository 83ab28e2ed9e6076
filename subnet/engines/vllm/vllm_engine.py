"""The engine: a vLLM server elsewhere."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import Any

import msgspec

from subnet.engines.remote.answer import Answer
from subnet.engines.remote.model import SAMPLE, Model, describe_reference, names
from subnet.engines.remote.pieces import LEAST_LOGPROB, pieces
from subnet.engines.remote.remote_engine import RemoteEngine
from subnet.engines.vllm.api import Choice, Chunk, request, scored, scores, version_of
from subnet.errors import EngineFailed, NodeError, NodeLost, SettingsError, WireError
from subnet.generation import FinishReason, Job, TokenLogprobs
from subnet.node_info import Capabilities
from subnet.wire.tensors import TokenIds

PATH = "/v1/completions"
# The first that tells token ids.
_OLDEST = (0, 10, 2)
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Entry(msgspec.Struct, frozen=True):
    """A model in `GET /v1/models`. `root` is where its files are; an adapter has its weights there, and a `parent`."""

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class Entries(msgspec.Struct, frozen=True):
    data: tuple[Entry, ...]


class Said(msgspec.Struct, frozen=True):
    entries: tuple[Entry, ...]
    version: str


class VllmEngine(RemoteEngine):
    """The first model of `spec.models`, or of a vLLM server at `spec.url`.

    The tokenizer comes from where the server has its model, a folder or a hub reference, or from `spec.tokenizer`.
    Tokens that were in its cache stand on the last delta of a choice: it tells no sooner.
    """

    name = "vllm"
    _version: tuple[int, ...] | None = None

    async def _ask(self) -> Said:
        with suppress(WireError):
            # It answers with nothing, or 503 when its engine is dead.
            await self._http.get("/health")
        try:
            entries = msgspec.convert(await self._http.get("/v1/models"), Entries)
            version = str((await self._http.get("/version"))["version"])
        except (msgspec.ValidationError, LookupError, TypeError) as error:
            raise WireError(f"{self._http.peer} is not a vLLM server: {error}") from error
        return Said(entries.data, version)

    async def _learn(self, said: Said) -> Model:
        self._version = version_of(said.version)
        if self._version is not None and self._version < _OLDEST:
            raise SettingsError(f"vLLM {said.version} does not return token ids: version 0.10.2 or later is required")
        by_name = {entry.id: entry for entry in said.entries}
        first = next((entry.id for entry in said.entries if entry.parent is None), "")
        served, own = names(self._spec, first)
        entry = by_name.get(own)
        if entry is None:
            raise NodeError(f"{self._http.peer} does not serve {own}; its models: {', '.join(by_name)}")
        base = by_name.get(entry.parent or own, entry)
        card, artefact = await describe_reference(
            self._spec.tokenizer or base.root,
            served,
            context_length=self._spec.context_length or entry.max_model_len or base.max_model_len,
        )
        await self._compare(artefact, {"model": own, "prompt": SAMPLE, "add_special_tokens": False})
        capabilities = Capabilities(
            resume="continue",
            top_logprobs=20,
            top_k=True,
            min_p=True,
            penalties=True,
            logit_bias=True,
            min_tokens=True,
            ignore_eos=True,
            prompt_logprobs=True,
            grammars=("json_schema", "regex"),
        )
        return Model(name=own, card=card, artefact=artefact, capabilities=capabilities, capacity=self._spec.concurrency)

    async def _answer(self, model: Model, job: Job, answer: Answer) -> None:
        body = request(model.name, job, answer.number, answer.left, self._version)
        last: Choice | None = None
        async with aclosing(pieces(self._http, PATH, body, Chunk)) as chunks:
            async for chunk in chunks:
                if chunk.usage is not None and chunk.usage.prompt_tokens_details is not None:
                    answer.cached = chunk.usage.prompt_tokens_details.cached_tokens or 0
                for choice in chunk.choices:
                    if choice.finish_reason is not None:
                        last = choice
                    else:
                        self._add(choice, job, answer)
                if answer.finished:
                    return
        if last is None:
            raise NodeLost(f"{self._http.peer} closed the stream in the middle of an answer")
        self._add(last, job, answer)

    def _add(self, choice: Choice, job: Job, answer: Answer) -> None:
        if choice.token_ids is None:
            raise EngineFailed(f"{self._http.peer} does not return token ids")
        reason = None if choice.finish_reason is None else _REASONS.get(choice.finish_reason)
        if choice.finish_reason is not None and reason is None:
            raise EngineFailed(f"{self._http.peer} aborted the answer: {choice.finish_reason}")
        width = job.sampling.logprobs
        told = None if width is None or choice.logprobs is None else scores(choice.logprobs, width)
        if width is not None and choice.token_ids and (told is None or len(told) != len(choice.token_ids)):
            raise WireError(f"{self._http.peer} did not return the requested logprobs")
        # What ends an answer is the last token.
        answer.add(choice.token_ids[:-1] if reason == "stop" else choice.token_ids, told, reason)

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        body = {
            "model": self._model.name,
            "prompt": tokens.tolist(),
            "max_tokens": 1,
            "temperature": 0,
            "add_special_tokens": False,
            "prompt_logprobs": width,
        }
        answer = await self._http.post(PATH, body)
        try:
            rows: list[dict[str, Any]] = answer["choices"][0]["prompt_logprobs"][1:]
            return [_score(row, token, width) for row, token in zip(rows, tokens[1:].tolist(), strict=True)]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise WireError(f"{self._http.peer} returned invalid logprobs: {error}") from error


def _score(row: dict[str, Any], token: int, width: int) -> TokenLogprobs:
    values = {int(name): max(float(each["logprob"]), LEAST_LOGPROB) for name, each in row.items()}
    return scored(values[token], values, width)
