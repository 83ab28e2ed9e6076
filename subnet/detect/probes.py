"""The servers that can be told apart, each by one question and the shape of the answer that it documents.

Sources: vLLM's API server (/version) and its ModelCard (owned_by); SGLang's "Native APIs" (/model_info, /server_info;
older ones have "get_" before the name); llama.cpp tools/server/README.md (/props); Ollama docs/api.md (/api/version);
Text Generation Inference router/src/lib.rs (struct Info); LM Studio "REST API v0" (/api/v0/models).
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from subnet.http.node_spec import Kind


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    """All that vLLM has at /version, and Ollama at /api/version."""

    version: str


class _SglangModel(msgspec.Struct):
    model_path: str
    is_generation: bool


class _SglangServer(msgspec.Struct):
    version: str


class _LlamaServer(msgspec.Struct):
    build_info: str
    default_generation_settings: dict[str, Any]

    @property
    def version(self) -> str:
        """As b6900 of b6900-1d49ca37."""
        return self.build_info.partition("-")[0]


class _Tgi(msgspec.Struct):
    """Its sister that only makes embeddings has no `max_total_tokens`."""

    model_id: str
    max_concurrent_requests: int
    max_total_tokens: int
    version: str


class _LmStudioModel(msgspec.Struct):
    id: str
    type: str
    state: str


class _LmStudio(msgspec.Struct):
    data: Annotated[list[_LmStudioModel], Meta(min_length=1)]


class _Subnet(msgspec.Struct):
    status: str
    model: str
    running: int


class Probe(NamedTuple):
    """A server is of this kind if one of `paths` has an answer of this `shape`, which may tell its version; else one of
    `version_paths` does, as `version_shape`.

    `owners` are whom its models belong to in GET /v1/models. With `owned`, all of this kind say so, so that only these
    are asked.
    """

    kind: Kind
    title: str
    paths: tuple[str, ...]
    shape: Any
    owners: frozenset[str] = frozenset()
    owned: bool = False
    version_paths: tuple[str, ...] = ()
    version_shape: Any = None


PROBES = (
    # Many servers have a /version.
    Probe("vllm", "vLLM", ("/version",), _Version, frozenset({"vllm"}), owned=True),
    Probe(
        "sglang",
        "SGLang",
        ("/model_info", "/get_model_info"),
        _SglangModel,
        frozenset({"sglang"}),
        version_paths=("/server_info", "/get_server_info"),
        version_shape=_SglangServer,
    ),
    Probe("llama-server", "llama-server", ("/props",), _LlamaServer, frozenset({"llamacpp"})),
    Probe("ollama", "Ollama", ("/api/version",), _Version, frozenset({"library"})),
    Probe("lmstudio", "LM Studio", ("/api/v0/models",), _LmStudio, frozenset({"organization_owner"})),
    Probe("tgi", "TGI", ("/info",), _Tgi),
    Probe("subnet", "subnet node", ("/healthz",), _Subnet),
)
TITLES: dict[Kind, str] = {probe.kind: probe.title for probe in PROBES} | {"openai": "OpenAI-compatible server"}
