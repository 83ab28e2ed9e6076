"""What a node can be told."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from subnet.settings import SettingsReader

_Count = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(ge=0)]


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 9000
    engine: Annotated[
        Literal["llama.cpp", "transformers", "vllm", "sglang", "llama-server", "echo"],
        Meta(description="what runs the model"),
    ] = "llama.cpp"
    upstream: Annotated[
        str | None, Meta(description="vllm, sglang, llama-server: address of that server, like http://gpu-1:8000")
    ] = None
    upstream_key_env: Annotated[
        str | None, Meta(description="variable of the environment with the key of that server")
    ] = None
    model: Annotated[
        str | None,
        Meta(
            description="a GGUF file, or owner/repo:file.gguf on a hub; for transformers a folder, or owner/repo;"
            " with an upstream its name there, none: the first"
        ),
    ] = None
    model_id: Annotated[str | None, Meta(description="name to serve the model under; none: from the file")] = None
    tokenizer: Annotated[
        str | None,
        Meta(
            description="a tokenizer.json, where the model file's is not known; with an upstream also a GGUF file,"
            " a folder or owner/repo, where the upstream's cannot be had"
        ),
    ] = None
    concurrency: Annotated[
        _Count | None, Meta(description="answers written at once; none: 4, with an upstream 64 or its slots")
    ] = None
    context_length: Annotated[_Count | None, Meta(description="tokens of context; none: the model's own")] = None
    threads: Annotated[_Count | None, Meta(description="threads of the model; none: all cores but one")] = None
    secret: Annotated[str | None, Meta(description="secret that gateways must share")] = None
    echo_rate: Annotated[_Seconds, Meta(description="echo: tokens a second and answer; 0: no pace")] = 50.0
    echo_size: Annotated[_Count, Meta(description="echo: tokens of an answer without max_tokens")] = 64
    echo_delay: Annotated[_Seconds, Meta(description="echo: seconds before the first token")] = 0.0
    drain_timeout: Annotated[
        _Seconds, Meta(description="seconds that running answers get to finish when the node is told to end")
    ] = 30.0
    with_parent: Annotated[bool, Meta(description="stop when standard input ends, as it does with the parent")] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least level that is logged")
    ] = "info"

    def __repr__(self) -> str:
        return f"NodeSettings(engine={self.engine!r}, model={self.model!r}, host={self.host!r}, port={self.port})"


reader = SettingsReader(NodeSettings, "SUBNET_", "node.toml")
