"""Model lists of servers, with context lengths and modalities, in each server's format."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import msgspec

from subnet.errors import WireError
from subnet.http.client import HttpClient
from subnet.http.error_map import NotFound
from subnet.http.node_spec import NodeSpec
from subnet.node_info import Modality
from subnet.protocols.openai.model_features import ModelFeatures, features_of

# vLLM and SGLang; OpenRouter and Together; LM Studio (as loaded); Groq; LM Studio and Mistral; llama-server (`meta`).
_CONTEXT_LENGTH_FIELDS = (
    "max_model_len",
    "context_length",
    "loaded_context_length",
    "context_window",
    "max_context_length",
    "n_ctx",
    "n_ctx_train",
)
_MODALITIES: dict[str, Modality] = {
    "image": "image",
    "vision": "image",
    "vlm": "image",
    "audio": "audio",
    "file": "file",
}
# Types of models that do not chat, at LM Studio and Together.
_NON_CHAT_TYPES = frozenset(
    {"embedding", "embeddings", "image", "video", "audio", "moderation", "rerank", "transcribe"}
)


class ListedModel(msgspec.Struct, frozen=True):
    """One model of a server.

    `names` are all names that the server accepts for it, the canonical one first. A `context_length` of 0 is unknown.
    """

    names: tuple[str, ...]
    context_length: int = 0
    modalities: tuple[Modality, ...] = ()
    created: int = 0
    features: ModelFeatures = ModelFeatures()


# A gateway keeps some kilobytes for each model; providers list some hundred.
_MAX_MODELS = 10_000
_MAX_NAME = 1024
_MAX_ALIASES = 64


class ModelLister:
    """Lists the models of the server of `spec`. Details that need a request per model are requested once for each."""

    def __init__(self, spec: NodeSpec, http: HttpClient) -> None:
        self._spec = spec
        self._http = http
        self._ollama_details: dict[tuple[str, int], dict[str, Any]] = {}
        self._ollama_loaded: dict[str, int] = {}

    async def list_models(self) -> list[ListedModel]:
        """Return all models that chat. Raises NodeError or RequestError if the list is unavailable."""
        entries = await self._entries()
        if self._spec.kind == "ollama":
            self._ollama_loaded = _from_ps(await self._get_if_present("/api/ps"))
        entries = [await self._with_details(entry) for entry in entries]
        return [self._listed_model(entry) for entry in entries if _is_chat_model(entry)]

    async def _entries(self) -> list[dict[str, Any]]:
        if self._spec.kind == "lmstudio":
            # More detailed than /v1/models: lmstudio.ai/docs/developer/rest/endpoints.
            try:
                return _entries(await self._http.get("/api/v0/models"))
            except NotFound:
                pass
        try:
            return _entries(await self._http.get("/v1/models"))
        except NotFound as error:
            raise NotFound(f"{self._spec.peer} does not list its models: set `models` for this node") from error

    async def _with_details(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return the entry with what the server's other endpoints report about the model, if they exist."""
        try:
            match self._spec.kind:
                case "ollama":
                    details = await self._ollama(entry["id"], entry.get("created") or 0)
                    loaded = self._ollama_loaded.get(entry["id"])
                    return entry | details | ({} if loaded is None else {"context_length": loaded})
                case "llama-server" if "architecture" not in entry:
                    return entry | _from_props(await self._http.get("/props"))
                case "tgi":
                    return entry | _from_info(await self._http.get("/info"))
        except NotFound:
            pass
        return entry

    async def _get_if_present(self, path: str) -> Any:
        try:
            return await self._http.get(path)
        except NotFound:
            return None

    async def _ollama(self, name: str, modified: int) -> dict[str, Any]:
        """Return details of an Ollama model: ollama/ollama docs/api.md, "Show Model Information"."""
        if (name, modified) not in self._ollama_details:
            self._ollama_details[name, modified] = _from_show(await self._http.post("/api/show", {"model": name}))
        return self._ollama_details[name, modified]

    def _listed_model(self, entry: dict[str, Any]) -> ListedModel:
        name, created = entry["id"], entry.get("created")
        aliases = list(_enabled(entry.get("aliases")))[:_MAX_ALIASES]
        modalities = _modalities(entry)
        if urlsplit(self._http.root).hostname == "api.openai.com":
            # The list has names only; all chat models of OpenAI that are not retired accept images.
            modalities = ("image",)
        return ListedModel(
            names=tuple(dict.fromkeys((name, name.removesuffix(":latest"), *aliases))),
            context_length=_context_length(entry),
            modalities=modalities,
            created=created if type(created) is int and created > 0 else 0,
            features=features_of(entry),
        )


def _entries(body: Any) -> list[dict[str, Any]]:
    # Together sends the list itself.
    entries = body if isinstance(body, list) else body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise WireError("invalid model list")
    if len(entries) > _MAX_MODELS:
        raise WireError(f"invalid model list: it has more than {_MAX_MODELS} models")
    return [entry for entry in entries if isinstance(entry, dict) and _is_name(entry.get("id"))]


def _is_name(value: Any) -> bool:
    """Return whether a value can name a model: in a log line or a header, line breaks would forge the next one."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _MAX_NAME


def _is_chat_model(entry: dict[str, Any]) -> bool:
    capabilities = entry.get("capabilities")
    if isinstance(capabilities, list) and "embedding" in capabilities and "completion" not in capabilities:
        return False
    # completion_chat: Mistral.
    return _object(capabilities).get("completion_chat") is not False and entry.get("type") not in _NON_CHAT_TYPES


def _context_length(entry: dict[str, Any]) -> int:
    objects = (entry, _object(entry.get("meta")))
    values = (fields.get(name) for name in _CONTEXT_LENGTH_FIELDS for fields in objects)
    return next((value for value in values if type(value) is int and value > 0), 0)


def _modalities(entry: dict[str, Any]) -> tuple[Modality, ...]:
    """Return the modalities of a model.

    OpenRouter and llama-server: architecture.input_modalities. Ollama and Mistral: capabilities. LM Studio: type.
    """
    inputs = _object(entry.get("architecture")).get("input_modalities")
    names = {*_enabled(inputs), *_enabled(entry.get("capabilities")), *_enabled([entry.get("type")])}
    return tuple(dict.fromkeys(modality for name, modality in _MODALITIES.items() if name in names))


def _enabled(value: Any) -> Iterable[str]:
    """Return the names in a list, or those that an object maps to true."""
    if isinstance(value, dict):
        return [name for name, enabled in value.items() if enabled is True]
    return [name for name in value if _is_name(name)] if isinstance(value, list) else []


def _from_props(props: Any) -> dict[str, Any]:
    """Read llama-server's GET /props: ggml-org/llama.cpp tools/server/README.md."""
    settings = _object(_object(props).get("default_generation_settings"))
    return {"context_length": settings.get("n_ctx"), "capabilities": _object(props).get("modalities")}


def _from_info(info: Any) -> dict[str, Any]:
    """Read TGI's GET /info: huggingface/text-generation-inference router/src/lib.rs, Info."""
    return {"context_length": _object(info).get("max_total_tokens")}


def _from_show(body: Any) -> dict[str, Any]:
    """Read Ollama's POST /api/show.

    The context length is the configured one (num_ctx) if there is one, else that of the training.
    """
    body = _object(body)
    num_ctx = dict(pairwise(str(body.get("parameters") or "").split())).get("num_ctx", "")
    trained = [size for name, size in _object(body.get("model_info")).items() if name.endswith(".context_length")]
    length = int(num_ctx) if num_ctx.isdecimal() else next(iter(trained), None)
    return {"context_length": length, "capabilities": body.get("capabilities")}


def _from_ps(body: Any) -> dict[str, int]:
    """Read Ollama's GET /api/ps, "List Running Models": the context lengths with which models are loaded now, by name.

    Ollama shortens a longer conversation without a word, whatever length the model was trained with.
    """
    models = _object(body).get("models")
    running = [_object(model) for model in models] if isinstance(models, list) else []
    lengths = {str(model.get("name")): model.get("context_length") for model in running}
    return {name: length for name, length in lengths.items() if type(length) is int and length > 0}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
