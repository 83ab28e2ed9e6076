"""The engine: an SGLang server elsewhere."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import msgspec

from subnet.engines.remote.answer import Answer
from subnet.engines.remote.model import SAMPLE, Model, describe_reference, names
from subnet.engines.remote.pieces import pieces
from subnet.engines.remote.remote_engine import RemoteEngine
from subnet.engines.sglang.api import FinishReason, Increments, Output, request
from subnet.errors import NodeError, NodeLost, WireError
from subnet.generation import Job
from subnet.node_info import Capabilities

PATH = "/generate"
# The newer name first.
_INFO = ("/model_info", "/get_model_info")


class Info(msgspec.Struct, frozen=True):
    """Paths or hub references."""

    model_path: str
    tokenizer_path: str | None = None


class Entry(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class Entries(msgspec.Struct, frozen=True):
    data: tuple[Entry, ...]


class Said(msgspec.Struct, frozen=True):
    info: Info
    entry: Entry


class SglangEngine(RemoteEngine):
    """The model of an SGLang server at `spec.url`.

    The tokenizer comes from where the server has it, a folder or a hub reference, or from `spec.tokenizer`. Its
    `/health` runs the model for a second, so that it is not what tells how the server is.
    """

    name = "sglang"

    async def _ask(self) -> Said:
        try:
            info = msgspec.convert(await self._info(), Info)
            entries = msgspec.convert(await self._http.get("/v1/models"), Entries)
            return Said(info, entries.data[0])
        except (msgspec.ValidationError, IndexError) as error:
            raise WireError(f"{self._http.peer} is not an SGLang server: {error}") from error

    async def _info(self) -> Any:
        newer, older = _INFO
        try:
            return await self._http.get(newer)
        except NodeLost:
            raise
        except NodeError:
            return await self._http.get(older)

    async def _learn(self, said: Said) -> Model:
        served, own = names(self._spec, said.entry.id)
        card, artefact = await describe_reference(
            self._spec.tokenizer or said.info.tokenizer_path or said.info.model_path,
            served,
            context_length=self._spec.context_length or said.entry.max_model_len,
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
            grammars=("json_schema", "regex"),
        )
        return Model(name=own, card=card, artefact=artefact, capabilities=capabilities, capacity=self._spec.concurrency)

    async def _answer(self, model: Model, job: Job, answer: Answer) -> None:
        increments = Increments()
        body = request(job, answer.number, answer.left)
        async with aclosing(pieces(self._http, PATH, body, Output)) as outputs:
            async for output in outputs:
                if not answer.tokens:
                    answer.cached = output.meta_info.cached_tokens
                ended = output.meta_info.finish_reason
                ids, scores = increments.decode(output, job.sampling.logprobs)
                if ended is None:
                    answer.add(ids, scores)
                    if answer.finished:
                        return
                else:
                    self._end(ended, ids, scores, answer)
        if not answer.finished:
            raise NodeLost(f"{self._http.peer} closed the stream in the middle of an answer")

    def _end(self, ended: FinishReason, ids: list[int], scores: Any, answer: Answer) -> None:
        if ended.type not in ("stop", "length"):
            raise self._http.to_error({"error": {"message": ended.message, "type": ended.err_type or ended.type}})
        matched = ended.type == "stop" and ids[-1:] == [ended.matched]
        answer.add(ids[:-1] if matched else ids, scores, "stop" if ended.type == "stop" else "length")
