"""Engine that forwards requests to a llama-server."""

from __future__ import annotations

import asyncio
from pathlib import PurePath
from typing import Any

import msgspec

from subnet.engines.llama_server.grammar_fields import supported_kinds, to_request_fields
from subnet.engines.llama_server.llama_server_api import NEUTRAL
from subnet.engines.llama_server.llama_server_choice import PATH, Choice, ServerInfo
from subnet.engines.llama_server.token_recovery import Vocabulary
from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.engines.remote.remote_engine import RemoteEngine
from subnet.engines.remote.remote_model import SAMPLE, Model, describe_reference, model_names
from subnet.errors import NodeError, NodeLost, RequestError, WireError
from subnet.generation import Job
from subnet.models.names import model_id_from_served_name
from subnet.node_info import Capabilities, TokenizerArtefact, fingerprint_facts

# Time to wait for the response to the grammar probe, in seconds.
_PROBE_TIMEOUT = 10.0


class SpeculativeParams(msgspec.Struct, frozen=True):
    """Settings of speculative decoding. `draft_types` is its method, "none" if it is disabled."""

    draft_types: Any = msgspec.field(name="speculative.types", default="none")


class DefaultSettings(msgspec.Struct, frozen=True):
    """Default generation settings in `/props`. `n_ctx` is the context length of a slot."""

    n_ctx: int = 0
    params: SpeculativeParams = SpeculativeParams()


class Props(msgspec.Struct, frozen=True):
    """Response of `GET /props`, as far as it is used."""

    model_path: str = ""
    model_alias: str = ""
    total_slots: int = 1
    chat_template: str = ""
    chat_template_tool_use: str = ""
    default_generation_settings: DefaultSettings = DefaultSettings()


class Meta(msgspec.Struct, frozen=True):
    """Number of parameters, and their size in bytes."""

    n_params: int = 0
    size: int = 0


class Entry(msgspec.Struct, frozen=True):
    meta: Meta | None = None


class Entries(msgspec.Struct, frozen=True):
    """Response of `GET /v1/models`, as far as it is used."""

    data: tuple[Entry, ...] = ()


class ServerReport(msgspec.Struct, frozen=True):
    props: Props
    meta: Meta


class ProbeSettings(msgspec.Struct, frozen=True):
    grammar: str = ""


class ProbeResult(msgspec.Struct, frozen=True):
    """Response to the grammar probe, with the settings that the server applied."""

    generation_settings: ProbeSettings = ProbeSettings()


class LlamaServerEngine(RemoteEngine):
    """Engine for the model of the llama-server at `spec.url`.

    The capacity is the server's number of slots, at most `spec.capacity`. The tokenizer is loaded from
    `spec.tokenizer`, or from the server's GGUF file if that is accessible on this machine.
    """

    name = "llama-server"

    async def _fetch_report(self) -> ServerReport:
        try:
            props = msgspec.convert(await self._http.get("/props"), Props)
        except msgspec.ValidationError as error:
            raise WireError(f"{self._http.peer} is not a llama-server: {error}") from error
        return ServerReport(props, await self._fetch_meta())

    async def _fetch_meta(self) -> Meta:
        """Return the size of the model, as far as the server reports it."""
        try:
            entries = msgspec.convert(await self._http.get("/v1/models"), Entries)
        except NodeLost:
            raise
        except (NodeError, RequestError, msgspec.ValidationError):
            return Meta()
        return next((entry.meta for entry in entries.data if entry.meta is not None), Meta())

    async def _describe_model(self, report: ServerReport) -> Model:
        props = report.props
        model_id, served_name = model_names(self._spec, _reported_name(props))
        card, artefact = await describe_reference(
            self._spec.tokenizer or props.model_path or None,
            model_id,
            _weights(report),
            context_length=self._spec.context_length or props.default_generation_settings.n_ctx,
            chat_template=props.chat_template,
            tool_template=props.chat_template_tool_use or None,
        )
        await self._verify_tokenizer(artefact, {"content": SAMPLE, "add_special": False})
        self._server = ServerInfo(
            self._http,
            Vocabulary(TokenizerArtefact.from_bytes(artefact).pieces),
            card.context_length,
            exact_count=props.default_generation_settings.params.draft_types == "none",
        )
        return Model(
            name=served_name,
            card=card,
            artefact=artefact,
            capacity=min(props.total_slots, self._spec.capacity),
            capabilities=await self._capabilities(),
        )

    async def _capabilities(self) -> Capabilities:
        return Capabilities(
            resume="continue",
            top_logprobs=20,
            top_k=True,
            min_p=True,
            typical_p=True,
            penalties=True,
            logit_bias=True,
            ignore_eos=True,
            grammars=supported_kinds(await self._probe_grammar()),
        )

    async def _probe_grammar(self) -> str:
        """Return the grammar to which the server converts a JSON schema; "" if all its slots are busy for too long."""
        body = NEUTRAL | {"prompt": [0], "n_predict": 1, "json_schema": {"type": "null"}}
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                probe = msgspec.convert(await self._http.post(PATH, body), ProbeResult)
        except (TimeoutError, msgspec.ValidationError):
            return ""
        return probe.generation_settings.grammar

    async def _generate(self, model: Model, job: Job, output: ChoiceOutput) -> None:
        grammar_fields = await to_request_fields(job.sampling.grammar, model.capabilities.grammars)
        await Choice(self._server, job, output, grammar_fields).run()


def _weights(report: ServerReport) -> str:
    """Return the fingerprint of the model's file, from its name and size: its folder differs between machines."""
    meta = report.meta
    name = PurePath(report.props.model_path).name
    return fingerprint_facts(LlamaServerEngine.name, name, meta.n_params, meta.size)


def _reported_name(props: Props) -> str:
    """Return the model's alias, which is the path of its file if none was set."""
    return model_id_from_served_name(props.model_alias or props.model_path)
