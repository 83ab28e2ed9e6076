"""The engine: a llama-server elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from subnet.engines.llama_server.api import NEUTRAL
from subnet.engines.llama_server.choice import PATH, Choice, Server
from subnet.engines.llama_server.grammar import kinds, limited
from subnet.engines.llama_server.split import Vocabulary
from subnet.engines.remote.answer import Answer
from subnet.engines.remote.model import SAMPLE, Model, describe_reference, names
from subnet.engines.remote.remote_engine import RemoteEngine
from subnet.errors import WireError
from subnet.generation import Job
from subnet.models.names import model_id_from_served_name
from subnet.node_info import Capabilities, TokenizerArtefact

# In seconds.
_PATIENCE = 10.0


class Params(msgspec.Struct, frozen=True):
    """`drafts` is how it drafts tokens ahead."""

    drafts: Any = msgspec.field(name="speculative.types", default="none")


class Settings(msgspec.Struct, frozen=True):
    """What `/props` calls the settings of a request that brings none; `n_ctx` is the context of a slot."""

    n_ctx: int = 0
    params: Params = Params()


class Props(msgspec.Struct, frozen=True):
    """What `GET /props` says, as far as it matters."""

    model_path: str = ""
    model_alias: str = ""
    total_slots: int = 1
    chat_template: str = ""
    default_generation_settings: Settings = Settings()


class TriedSettings(msgspec.Struct, frozen=True):
    grammar: str = ""


class Tried(msgspec.Struct, frozen=True):
    """What a server says of a request that it has answered."""

    generation_settings: TriedSettings = TriedSettings()


class LlamaServerEngine(RemoteEngine):
    """The model that a llama-server at `spec.url` has loaded. Its slots are the capacity, at most `spec.concurrency`.

    The tokenizer comes from the GGUF file that it names, if that is on this machine too, or from `spec.tokenizer`.
    """

    name = "llama-server"

    async def _ask(self) -> Props:
        try:
            return msgspec.convert(await self._http.get("/props"), Props)
        except msgspec.ValidationError as error:
            raise WireError(f"{self._http.peer} is not a llama-server: {error}") from error

    async def _learn(self, said: Props) -> Model:
        served, own = names(self._spec, _name(said))
        card, artefact = await describe_reference(
            self._spec.tokenizer or said.model_path or None,
            served,
            context_length=self._spec.context_length or said.default_generation_settings.n_ctx,
            chat_template=said.chat_template,
        )
        await self._compare(artefact, {"content": SAMPLE, "add_special": False})
        self._server = Server(
            self._http,
            Vocabulary(TokenizerArtefact.from_bytes(artefact).pieces),
            card.context_length,
            counted=said.default_generation_settings.params.drafts == "none",
        )
        return Model(
            name=own,
            card=card,
            artefact=artefact,
            capacity=min(said.total_slots, self._spec.concurrency),
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
            grammars=kinds(await self._grammar()),
        )

    async def _grammar(self) -> str:
        """What it makes of a JSON schema; nothing where all slots are taken for too long."""
        body = NEUTRAL | {"prompt": [0], "n_predict": 1, "json_schema": {"type": "null"}}
        try:
            async with asyncio.timeout(_PATIENCE):
                tried = msgspec.convert(await self._http.post(PATH, body), Tried)
        except (TimeoutError, msgspec.ValidationError):
            return ""
        return tried.generation_settings.grammar

    async def _answer(self, model: Model, job: Job, answer: Answer) -> None:
        limits = await limited(job.sampling.grammar, model.capabilities.grammars)
        await Choice(self._server, job, answer, limits).run()


def _name(said: Props) -> str:
    """Its alias, which is the file's path where none was given."""
    return model_id_from_served_name(said.model_alias or said.model_path)
