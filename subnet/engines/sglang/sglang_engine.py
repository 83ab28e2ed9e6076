"""Engine that forwards requests to an SGLang server."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import msgspec

from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.remote_engine import RemoteEngine
from subnet.engines.remote.remote_model import SAMPLE, Model, describe_reference, model_names
from subnet.engines.remote.stream_events import stream_events
from subnet.engines.sglang.sglang_api import FinishReason, GenerateEvent, IncrementDecoder, build_request
from subnet.errors import NodeError, NodeLost, ResponseLost, WireError
from subnet.generation import Job
from subnet.node_info import Capabilities, fingerprint_facts

PATH = "/generate"
# Newer name first.
_INFO_PATHS = ("/model_info", "/get_model_info")


class Info(msgspec.Struct, frozen=True):
    """Locations of the model and its tokenizer: paths or hub references. `weight_version` changes when the server has
    loaded other weights in their place.
    """

    model_path: str
    tokenizer_path: str | None = None
    weight_version: Any = None


class Entry(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class Entries(msgspec.Struct, frozen=True):
    data: tuple[Entry, ...]


class ServerReport(msgspec.Struct, frozen=True):
    info: Info
    entry: Entry


class SglangEngine(RemoteEngine):
    """Engine for the model of the SGLang server at `spec.url`.

    The tokenizer is loaded from `spec.tokenizer`, or from where the server has it: a folder or a hub reference. Health
    checks do not use SGLang's `/health`, because that runs the model for a second.
    """

    name = "sglang"
    _may_draw_by_position = True

    async def _fetch_report(self) -> ServerReport:
        try:
            info = msgspec.convert(await self._fetch_info(), Info)
            entries = msgspec.convert(await self._http.get("/v1/models"), Entries)
            return ServerReport(info, entries.data[0])
        except (msgspec.ValidationError, IndexError) as error:
            raise WireError(f"{self._http.peer} is not an SGLang server: {error}") from error

    async def _fetch_info(self) -> Any:
        newer, older = _INFO_PATHS
        try:
            return await self._http.get(newer)
        except NodeLost:
            raise
        except NodeError:
            return await self._http.get(older)

    async def _describe_model(self, report: ServerReport) -> Model:
        model_id, served_name = model_names(self._spec, report.entry.id)
        card, artefact = await describe_reference(
            self._spec.tokenizer or report.info.tokenizer_path or report.info.model_path,
            model_id,
            fingerprint_facts(self.name, report.info.model_path, report.info.weight_version),
            context_length=self._spec.context_length or report.entry.max_model_len,
        )
        await self._verify_tokenizer(artefact, {"model": served_name, "prompt": SAMPLE, "add_special_tokens": False})
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
        return Model(
            name=served_name, card=card, artefact=artefact, capabilities=capabilities, capacity=self._spec.capacity
        )

    async def _generate(self, model: Model, job: Job, output: ChoiceOutput) -> None:
        decoder = IncrementDecoder()
        body = build_request(model, job, output)
        async with aclosing(stream_events(self._http, PATH, body, GenerateEvent, output.keep_alive)) as events:
            async for event in events:
                if not output.tokens:
                    output.cached_tokens = event.meta_info.cached_tokens
                finish_reason = event.meta_info.finish_reason
                ids, logprobs = decoder.decode(event, job.sampling.logprobs)
                if finish_reason is None:
                    output.add(ids, logprobs)
                    if output.finished:
                        return
                else:
                    self._finish(finish_reason, ids, logprobs, output)
        if not output.finished:
            raise ResponseLost(f"{self._http.peer} closed the stream in the middle of an answer")

    def _finish(self, finish_reason: FinishReason, ids: list[int], logprobs: Any, output: ChoiceOutput) -> None:
        if finish_reason.type not in ("stop", "length"):
            error_type = finish_reason.err_type or finish_reason.type
            raise self._http.to_error({"error": {"message": finish_reason.message, "type": error_type}})
        matched = finish_reason.type == "stop" and ids[-1:] == [finish_reason.matched]
        output.add(ids[:-1] if matched else ids, logprobs, "stop" if finish_reason.type == "stop" else "length")
