"""What a server says of its models."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import msgspec

from subnet.errors import NodeError, WireError
from subnet.http.client import Http
from subnet.http.error_map import NotFound
from subnet.http.node_spec import NodeSpec
from subnet.node_info import Modality

# vLLM and SGLang; OpenRouter and Together; LM Studio (as loaded); Groq; LM Studio and Mistral; llama-server (`meta`).
_LENGTHS = (
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
_OTHER = frozenset({"embedding", "embeddings", "image", "video", "audio", "moderation", "rerank", "transcribe"})


class Listing(msgspec.Struct, frozen=True):
    """One model, by its `names`: the first is the server's. A `context_length` of 0 is unknown."""

    names: tuple[str, ...]
    context_length: int = 0
    modalities: tuple[Modality, ...] = ()
    created: int = 0


class Lister:
    """Asks the server of `spec` for its models. What takes a request per model is asked once for each."""

    def __init__(self, spec: NodeSpec, http: Http) -> None:
        self._spec = spec
        self._http = http
        self._shown: dict[tuple[str, int], dict[str, Any]] = {}

    async def models(self) -> list[Listing]:
        """All that chat; of a server without a list, if the spec names its models, none. Raises NodeError."""
        entries = [await self._more(entry) for entry in await self._entries()]
        return [self._listing(entry) for entry in entries if _chats(entry)]

    async def _entries(self) -> list[dict[str, Any]]:
        if self._spec.kind == "lmstudio":
            # Its own list says more: lmstudio.ai/docs/developer/rest/endpoints.
            try:
                return _entries(await self._http.get("/api/v0/models"))
            except NotFound:
                pass
        try:
            return _entries(await self._http.get("/v1/models"))
        except NotFound as error:
            if self._spec.models:
                return []
            raise NodeError(f"{self._spec.peer} does not list its models: set `models` for this node") from error

    async def _more(self, entry: dict[str, Any]) -> dict[str, Any]:
        """With what the server says elsewhere, if it does."""
        try:
            match self._spec.kind:
                case "ollama":
                    return entry | await self._ollama(entry["id"], entry.get("created") or 0)
                case "llama-server" if "architecture" not in entry:
                    return entry | _props(await self._http.get("/props"))
                case "tgi":
                    return entry | _info(await self._http.get("/info"))
        except NotFound:
            pass
        return entry

    async def _ollama(self, name: str, changed: int) -> dict[str, Any]:
        """ollama/ollama docs/api.md, "Show Model Information"."""
        if (name, changed) not in self._shown:
            self._shown[name, changed] = _show(await self._http.post("/api/show", {"model": name}))
        return self._shown[name, changed]

    def _listing(self, entry: dict[str, Any]) -> Listing:
        name, created = entry["id"], entry.get("created")
        aliases = _words(entry.get("aliases"))
        modalities = _modalities(entry)
        if urlsplit(self._http.root).hostname == "api.openai.com":
            # Its list has names only; all of its models for chat that are not retired see.
            modalities = ("image",)
        return Listing(
            names=tuple(dict.fromkeys((name, name.removesuffix(":latest"), *aliases))),
            context_length=_context_length(entry),
            modalities=modalities,
            created=created if isinstance(created, int) else 0,
        )


def _entries(body: Any) -> list[dict[str, Any]]:
    # Together sends the list itself.
    found = body if isinstance(body, list) else body.get("data") if isinstance(body, dict) else None
    if not isinstance(found, list):
        raise WireError("invalid model list")
    return [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _chats(entry: dict[str, Any]) -> bool:
    capabilities = entry.get("capabilities")
    if isinstance(capabilities, list) and "embedding" in capabilities and "completion" not in capabilities:
        return False
    # completion_chat: Mistral.
    return _object(capabilities).get("completion_chat") is not False and entry.get("type") not in _OTHER


def _context_length(entry: dict[str, Any]) -> int:
    values = (place.get(name) for name in _LENGTHS for place in (entry, _object(entry.get("meta"))))
    return next((value for value in values if type(value) is int and value > 0), 0)


def _modalities(entry: dict[str, Any]) -> tuple[Modality, ...]:
    """OpenRouter and llama-server: architecture.input_modalities. Ollama and Mistral: capabilities. LM Studio: type."""
    told = _object(entry.get("architecture")).get("input_modalities")
    words = {*_words(told), *_words(entry.get("capabilities")), *_words([entry.get("type")])}
    return tuple(dict.fromkeys(modality for word, modality in _MODALITIES.items() if word in words))


def _words(told: Any) -> Iterable[str]:
    """What is listed, or mapped to true."""
    if isinstance(told, dict):
        return [word for word, holds in told.items() if holds is True]
    return [word for word in told if isinstance(word, str)] if isinstance(told, list) else []


def _props(props: Any) -> dict[str, Any]:
    """ggml-org/llama.cpp tools/server/README.md, GET /props."""
    settings = _object(_object(props).get("default_generation_settings"))
    return {"context_length": settings.get("n_ctx"), "capabilities": _object(props).get("modalities")}


def _info(info: Any) -> dict[str, Any]:
    """huggingface/text-generation-inference router/src/lib.rs, Info."""
    return {"context_length": _object(info).get("max_total_tokens")}


def _show(shown: Any) -> dict[str, Any]:
    """What counts is what the model is loaded with, if its parameters say so, else what it was trained with."""
    shown = _object(shown)
    told = dict(pairwise(str(shown.get("parameters") or "").split())).get("num_ctx", "")
    trained = [size for name, size in _object(shown.get("model_info")).items() if name.endswith(".context_length")]
    length = int(told) if told.isdecimal() else next(iter(trained), None)
    return {"context_length": length, "capabilities": shown.get("capabilities")}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
