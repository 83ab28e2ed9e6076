"""Engine that forwards requests to a vLLM server."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import Any

import msgspec

from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.remote_engine import RemoteEngine
from subnet.engines.remote.remote_model import SAMPLE, Model, describe_reference, model_names
from subnet.engines.remote.stream_events import stream_events
from subnet.engines.vllm.vllm_api import Choice, Chunk, build_request, convert_logprobs, rank_logprobs
from subnet.errors import EngineFailed, NodeError, ResponseLost, SettingsError, WireError
from subnet.generation import MIN_LOGPROB, FinishReason, Job, TokenLogprobs
from subnet.http.server_version import parse_version
from subnet.node_info import Capabilities, fingerprint_facts
from subnet.tensors import TokenIds

PATH = "/v1/completions"
# The first version that returns token ids.
_MIN_VERSION = (0, 10, 2)
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Entry(msgspec.Struct, frozen=True):
    """Model in `GET /v1/models`. `root` is the location of its files; a LoRA adapter also has a `parent`."""

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class Entries(msgspec.Struct, frozen=True):
    data: tuple[Entry, ...]


class ServerReport(msgspec.Struct, frozen=True):
    entries: tuple[Entry, ...]
    version: str


class VllmEngine(RemoteEngine):
    """Engine for the first model of `spec.models`, or the first one of the vLLM server at `spec.url`.

    The tokenizer is loaded from `spec.tokenizer`, or from where the server has its model: a folder or a hub reference.
    `cached_tokens` is set on the last delta of a choice, because vLLM does not report it earlier.
    """

    name = "vllm"
    _may_draw_by_position = True
    _version: tuple[int, ...] | None = None

    async def _fetch_report(self) -> ServerReport:
        with suppress(WireError):
            # The response is empty, or 503 if vLLM's engine is dead.
            await self._http.get("/health")
        try:
            entries = msgspec.convert(await self._http.get("/v1/models"), Entries)
            version = str((await self._http.get("/version"))["version"])
        except (msgspec.ValidationError, LookupError, TypeError) as error:
            raise WireError(f"{self._http.peer} is not a vLLM server: {error}") from error
        return ServerReport(entries.data, version)

    async def _describe_model(self, report: ServerReport) -> Model:
        self._version = parse_version(report.version)
        if self._version is not None and self._version < _MIN_VERSION:
            raise SettingsError(f"vLLM {report.version} does not return token ids: version 0.10.2 or later is required")
        by_name = {entry.id: entry for entry in report.entries}
        default_name = next((entry.id for entry in report.entries if entry.parent is None), "")
        model_id, served_name = model_names(self._spec, default_name)
        entry = by_name.get(served_name)
        if entry is None:
            raise NodeError(f"{self._http.peer} does not serve {served_name}; its models: {', '.join(by_name)}")
        base_model = by_name.get(entry.parent or served_name, entry)
        card, artefact = await describe_reference(
            self._spec.tokenizer or base_model.root,
            model_id,
            _weights(entry, base_model),
            context_length=self._spec.context_length or entry.max_model_len or base_model.max_model_len,
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
            prompt_logprobs=True,
            grammars=("json_schema", "regex"),
        )
        return Model(
            name=served_name, card=card, artefact=artefact, capabilities=capabilities, capacity=self._spec.capacity
        )

    async def _generate(self, model: Model, job: Job, output: ChoiceOutput) -> None:
        body = build_request(model, job, output, self._version)
        last: Choice | None = None
        async with aclosing(stream_events(self._http, PATH, body, Chunk, output.keep_alive)) as chunks:
            async for chunk in chunks:
                if chunk.usage is not None and chunk.usage.prompt_tokens_details is not None:
                    output.cached_tokens = chunk.usage.prompt_tokens_details.cached_tokens or 0
                for choice in chunk.choices:
                    if choice.finish_reason is not None:
                        last = choice
                    else:
                        self._add_choice(choice, job, output)
                if output.finished:
                    return
        if last is None:
            raise ResponseLost(f"{self._http.peer} closed the stream in the middle of an answer")
        self._add_choice(last, job, output)

    def _add_choice(self, choice: Choice, job: Job, output: ChoiceOutput) -> None:
        if choice.token_ids is None:
            raise EngineFailed(f"{self._http.peer} does not return token ids")
        finish_reason = None if choice.finish_reason is None else _REASONS.get(choice.finish_reason)
        if choice.finish_reason is not None and finish_reason is None:
            raise EngineFailed(f"{self._http.peer} aborted the answer: {choice.finish_reason}")
        width = job.sampling.logprobs
        logprobs = None if width is None or choice.logprobs is None else convert_logprobs(choice.logprobs, width)
        if width is not None and choice.token_ids and (logprobs is None or len(logprobs) != len(choice.token_ids)):
            raise WireError(f"{self._http.peer} did not return the requested logprobs")
        # The last token is the one that ended the answer.
        output.add(choice.token_ids[:-1] if finish_reason == "stop" else choice.token_ids, logprobs, finish_reason)

    async def score(self, tokens: TokenIds, width: int) -> list[TokenLogprobs]:
        body = {
            "model": self._model.name,
            "prompt": tokens.tolist(),
            "max_tokens": 1,
            "temperature": 0,
            "add_special_tokens": False,
            "prompt_logprobs": width,
        }
        response = await self._http.post(PATH, body)
        try:
            rows: list[dict[str, Any]] = response["choices"][0]["prompt_logprobs"][1:]
            return [_parse_logprobs(row, token, width) for row, token in zip(rows, tokens[1:].tolist(), strict=True)]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise WireError(f"{self._http.peer} returned invalid logprobs: {error}") from error


def _weights(entry: Entry, base_model: Entry) -> str:
    """Return the fingerprint of a model, and of its adapter if it has one, from where the server has their files."""
    adapter = () if entry.parent is None else (entry.root,)
    return fingerprint_facts(VllmEngine.name, base_model.root, *adapter)


def _parse_logprobs(row: dict[str, Any], token: int, width: int) -> TokenLogprobs:
    values = {int(name): max(float(fields["logprob"]), MIN_LOGPROB) for name, fields in row.items()}
    return rank_logprobs(values[token], values, width)
