"""Settings of a node, from which its flags, validation and reference are generated."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from subnet.config import SettingsReader
from subnet.errors import SettingsError
from subnet.http.loopback import is_loopback

_PositiveCount = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(ge=0)]


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a node process, read from flags, environment variables (SUBNET_*) and node.toml."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0: any free port")] = 9000
    engine: Annotated[
        Literal["llama.cpp", "transformers", "vllm", "sglang", "llama-server", "echo"],
        Meta(description="engine that runs the model"),
    ] = "llama.cpp"
    upstream: Annotated[
        str | None,
        Meta(description="address of the upstream server, for the vllm, sglang and llama-server engines"),
    ] = None
    upstream_key_env: Annotated[
        str | None, Meta(description="environment variable with the upstream server's API key")
    ] = None
    model: Annotated[
        str | None,
        Meta(
            description="model to load: a GGUF file or owner/repo:file.gguf on the Hugging Face hub; for transformers"
            " a folder or owner/repo; with an upstream, the model's name there (default: its first)"
        ),
    ] = None
    model_id: Annotated[str | None, Meta(description="name to serve the model under; default: from the file name")] = (
        None
    )
    tokenizer: Annotated[
        str | None,
        Meta(
            description="tokenizer.json to use in place of the one in the model's GGUF file; with an upstream it may"
            " also be a GGUF file, a folder or owner/repo"
        ),
    ] = None
    concurrency: Annotated[
        _PositiveCount | None,
        Meta(
            description="maximum number of answers at once; default: 4; with an upstream: 64, or a llama-server's slots"
            " if they are fewer"
        ),
    ] = None
    context_length: Annotated[
        _PositiveCount | None,
        Meta(description="context length in tokens; default: the model's maximum; for GGUF files at most 8,192"),
    ] = None
    threads: Annotated[
        _PositiveCount | None, Meta(description="threads of the engine; default: one less than the number of cores")
    ] = None
    secret: Annotated[str | None, Meta(description="secret shared with the gateways (HMAC-SHA256)")] = None
    insecure: Annotated[
        bool,
        Meta(
            description="start without a secret on an address beyond loopback although the node holds the API key of"
            " its upstream server: everyone who can reach it uses that"
        ),
    ] = False
    max_clock_skew: Annotated[
        float,
        Meta(gt=0, le=86400, description="maximum difference between the clocks of nodes and gateways, in seconds"),
    ] = 60.0
    echo_rate: Annotated[_Seconds, Meta(description="echo engine: tokens per second of each answer; 0: unlimited")] = (
        50.0
    )
    echo_size: Annotated[
        _PositiveCount | None,
        Meta(
            description="echo engine: tokens after which an answer ends, unless ignore_eos is set; default: its"
            " max_tokens, or 64"
        ),
    ] = None
    echo_delay: Annotated[_Seconds, Meta(description="echo engine: time before the first token, in seconds")] = 0.0
    drain_timeout: Annotated[
        _Seconds, Meta(description="time that running answers get to finish on shutdown, in seconds")
    ] = 30.0
    with_parent: Annotated[
        bool, Meta(description="exit when standard input closes, as it does when the parent process ends")
    ] = False
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="minimum log level")] = "info"

    def exposure(self) -> str | None:
        """Return a warning if strangers can use the node; None if it has a secret, or listens on loopback only.

        Raises SettingsError if they would use an API key with it, unless the operator wants that.
        """
        if self.secret or is_loopback(self.host):
            return None
        risk = f"everyone who can reach {self.host} may use this node, because secret is not set"
        if self.upstream_key_env and not self.insecure:
            raise SettingsError(
                f'host: {risk}, and with it the API key of {self.upstream}; set secret, or host = "127.0.0.1"; to start'
                " all the same: --insecure"
            )
        return f"WARNING: {risk}"

    def __repr__(self) -> str:
        return f"NodeSettings(engine={self.engine!r}, model={self.model!r}, host={self.host!r}, port={self.port})"


reader = SettingsReader(NodeSettings, "SUBNET_", "node.toml")
