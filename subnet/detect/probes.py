"""Types of servers that can be detected, each by the documented response to one request.

Sources: vLLM's API server (/version) and its ModelCard (owned_by); SGLang's "Native APIs" (/model_info, /server_info;
older ones have "get_" before the name); llama.cpp tools/server/README.md (/props); Ollama docs/api.md (/api/version);
Text Generation Inference router/src/lib.rs (struct Info); LM Studio "REST API v0" (/api/v0/models);
transformers/cli/serving/server.py (/load_model).
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from subnet.http.node_spec import Kind


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    """Response of vLLM's /version and Ollama's /api/version."""

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
        """Build number, such as b6900 for b6900-1d49ca37."""
        return self.build_info.partition("-")[0]


class _Tgi(msgspec.Struct):
    # Text Embeddings Inference has the same path, but no `max_total_tokens`.
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
    """Test for one type of server: one of `paths` returns a response of this `shape`.

    The version is in that response, or in one of `version_shape` from one of `version_paths`. `owners` are the values
    of `owned_by` in the server's model list. `requires_owner`: all servers of this type have one of them, so no others
    are probed. `refusal`: the server has no such path, but refuses an empty object that is posted to the first of
    `paths` with these words.
    """

    kind: Kind
    title: str
    paths: tuple[str, ...]
    shape: Any
    owners: frozenset[str] = frozenset()
    requires_owner: bool = False
    version_paths: tuple[str, ...] = ()
    version_shape: Any = None
    refusal: str = ""


PROBES = (
    # Servers of many other types have a /version, too.
    Probe("vllm", "vLLM", ("/version",), _Version, frozenset({"vllm"}), requires_owner=True),
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
    # Its only other marks are its /openapi.json, which takes seconds and megabytes elsewhere, and its /health, at which
    # LiteLLM asks all its providers for an answer.
    Probe(
        "transformers",
        "transformers serve",
        ("/load_model",),
        None,
        refusal="Missing `model` field in the request body.",
    ),
    Probe("subnet", "subnet node", ("/healthz",), _Subnet),
)
TITLES: dict[Kind, str] = {probe.kind: probe.title for probe in PROBES} | {"openai": "OpenAI-compatible server"}
