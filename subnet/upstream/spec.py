"""What an operator says of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from subnet.node_info import Lane, Modality

Kind = Literal["subnet", "vllm", "sglang", "llama-server", "ollama", "tgi", "lmstudio", "openai"]

_Seconds = Annotated[float, Meta(gt=0)]


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node to be used. Only `url` must be known: the rest is found out, or has a sane default.

    `models`: the names to serve under, with the server's own names of the same models; empty: all, by their own names.
    `tokenizer`: a folder, a tokenizer.json, a GGUF file or a hub reference, where the server's own cannot be had.
    `api_key_env` names a variable of the environment, `api_key_file` a file with the key. `prefill`: whether it goes on
    with an answer that was begun. Times are in seconds; None: as for all nodes.
    """

    url: str
    kind: Kind | None = None
    lane: Lane | None = None
    models: Mapping[str, str] = {}
    tokenizer: str | None = None
    context_length: Annotated[int, Meta(ge=1)] | None = None
    concurrency: Annotated[int, Meta(ge=1)] = 64
    modalities: tuple[Modality, ...] | None = None
    prefill: bool | None = None
    api_key: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    headers: Mapping[str, str] = {}
    proxy: str | None = None
    ca_bundle: str | None = None
    connect_timeout: _Seconds = 5.0
    first_token_timeout: _Seconds | None = None
    stall_timeout: _Seconds | None = None
    total_timeout: _Seconds | None = None

    def __repr__(self) -> str:
        return f"NodeSpec(url={self.url!r}, kind={self.kind!r})"
