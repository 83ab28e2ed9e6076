"""Settings of one node in the gateway's configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from subnet.errors import SettingsError
from subnet.node_info import Lane, Modality, Placement

Kind = Literal["subnet", "vllm", "sglang", "llama-server", "ollama", "tgi", "lmstudio", "transformers", "openai"]

_Seconds = Annotated[float, Meta(gt=0)]
# Settings of a node and, in the gateway, of a model.
FirstTokenTimeout = Annotated[
    _Seconds | None, Meta(description="maximum time to the first token, in seconds; default: the gateway's setting")
]
InterTokenTimeout = Annotated[
    _Seconds | None, Meta(description="maximum time between two tokens, in seconds; default: the gateway's setting")
]
AttemptTimeout = Annotated[
    _Seconds | None, Meta(description="maximum time of one attempt as a whole, in seconds; default: no limit")
]
_Text = Annotated[str, Meta(min_length=1)]
_Priority = Annotated[int, Meta(ge=0, le=1000)]
_Weight = Annotated[float, Meta(gt=0, le=1000)]


_DEFAULT_CAPACITY = 64
_KEY_HEADER = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one node. Only `url` is required: the rest is detected, or has a default.

    Timeouts are in seconds; None: the gateway's setting of the same name. Raises ValueError for an invalid address, and
    for more than one API key.
    """

    url: Annotated[str, Meta(description="address, with or without `/v1`")]
    name: Annotated[_Text | None, Meta(description="name in tables and logs, instead of the address")] = None
    kind: Annotated[Kind | None, Meta(description="type of server, instead of detecting it")] = None
    lane: Annotated[Lane | None, Meta(description="lane to use, instead of the token lane where it is possible")] = None
    models: Annotated[
        Mapping[_Text, _Text],
        Meta(
            description="models to serve, each with the server's own name for it; default: all of the server's models"
        ),
    ] = {}
    tokenizer: Annotated[
        _Text | None,
        Meta(
            description="folder, tokenizer.json, GGUF file or hub reference of the tokenizer, if the server's cannot be"
            " loaded"
        ),
    ] = None
    context_length: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="context length in tokens, if the server does not report it"),
    ] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="maximum number of answers at once; further requests are queued; default: no limit on the chat"
            " lane, 64 on the token lane"
        ),
    ] = None
    priority: Annotated[
        _Priority,
        Meta(description="0: asked first; a node with a higher number only when none with a lower one is available"),
    ] = 0
    weight: Annotated[
        _Weight, Meta(description="share of the requests, relative to the other nodes of the same priority")
    ] = 1.0
    model_priority: Annotated[
        Mapping[_Text, _Priority], Meta(description="priority of individual models, by their names in `models`")
    ] = {}
    model_weight: Annotated[Mapping[_Text, _Weight], Meta(description="weight of individual models")] = {}
    modalities: Annotated[
        tuple[Modality, ...] | None, Meta(description="input types besides text, if the server does not report them")
    ] = None
    prefill: Annotated[
        bool | None,
        Meta(description="whether the server can continue an assistant message, if the gateway cannot tell"),
    ] = None
    seeds: Annotated[
        bool | None,
        Meta(
            description="whether the server gives the same answer for the same seed: then requests without a seed get"
            " one, so that they can be resumed; default: only llama-server, Ollama, vLLM and SGLang"
        ),
    ] = None
    replay: Annotated[
        bool,
        Meta(description="whether an interrupted answer may be requested again, which a provider bills again"),
    ] = True
    api_key: Annotated[_Text | None, Meta(description="API key to send; prefer api_key_env or api_key_file")] = None
    api_key_env: Annotated[_Text | None, Meta(description="environment variable with the API key")] = None
    api_key_file: Annotated[_Text | None, Meta(description="file with the API key")] = None
    headers: Annotated[Mapping[str, str], Meta(description="additional HTTP headers to send")] = {}
    secret: Annotated[
        _Text | None, Meta(description="secret shared with this subnet node, instead of the gateway's `secret`")
    ] = None
    proxy: Annotated[str | None, Meta(description="HTTP proxy, like http://host:3128")] = None
    ca_bundle: Annotated[_Text | None, Meta(description="file with the CA certificates to trust")] = None
    connect_timeout: Annotated[float, Meta(gt=0, description="maximum time to connect, in seconds")] = 5.0
    first_token_timeout: FirstTokenTimeout = None
    inter_token_timeout: InterTokenTimeout = None
    attempt_timeout: AttemptTimeout = None

    def __post_init__(self) -> None:
        _check_url(self.url)
        if sum(key is not None for key in (self.api_key, self.api_key_env, self.api_key_file)) > 1:
            raise ValueError("only one of api_key, api_key_env and api_key_file may be set")
        if self.proxy is not None and not _is_url(self.proxy):
            raise ValueError("proxy: expected an address such as http://host:3128")
        for name in (*self.model_priority, *self.model_weight):
            if self.models and name not in self.models:
                raise ValueError(f"model_priority and model_weight: {name!r} is not one of `models`")

    @classmethod
    def from_text(cls, text: str) -> dict[str, str]:
        """Return the fields for a text such as "http://gpu-1:8000" or "vllm=http://gpu-1:8000"."""
        kind, mark, url = text.partition("=")
        return {"kind": kind, "url": url} if mark and "/" not in kind else {"url": text}

    @property
    def capacity(self) -> int:
        """Number of answers at once: the limit, or an estimate to compare loads with where there is none."""
        return self.concurrency or _DEFAULT_CAPACITY

    @property
    def peer(self) -> str:
        """Name of the node in tables, logs and messages."""
        return self.name or self.url.rstrip("/")

    def placement(self, model: str) -> Placement:
        """Return the place of one model of the node."""
        priority, weight = self.model_priority.get(model, self.priority), self.model_weight.get(model, self.weight)
        return Placement(priority, weight, model in self.models)

    @property
    def is_upstream(self) -> bool:
        """Whether the operator says that the address is not that of a subnet node: by its type, or by an API key."""
        return self.kind not in (None, "subnet") or self.has_key

    @property
    def has_key(self) -> bool:
        """Whether requests to the server carry an API key, or a header that by its name is one."""
        headers = any(_KEY_HEADER.search(name) for name in self.headers)
        return bool(self.api_key or self.api_key_env or self.api_key_file or headers)

    def check(self) -> None:
        """Check that the API key and the CA bundle can be read. Raises SettingsError otherwise."""
        self.key()
        if self.ca_bundle is not None and not Path(self.ca_bundle).is_file():
            raise SettingsError(f"{self.peer}: ca_bundle: no such file: {self.ca_bundle}")

    def key(self) -> str | None:
        """Read the API key; None if none is set. Raises SettingsError, whose message does not contain the key."""
        if self.api_key_env is not None:
            return self._not_empty(
                os.environ.get(self.api_key_env), f"environment variable {self.api_key_env} (api_key_env) is not set"
            )
        if self.api_key_file is not None:
            try:
                key = Path(self.api_key_file).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{self.peer}: api_key_file: cannot read {self.api_key_file}") from error
            return self._not_empty(key, f"api_key_file: {self.api_key_file} is empty")
        return self.api_key

    def _not_empty(self, key: str | None, missing: str) -> str:
        if key is None or not key.strip():
            raise SettingsError(f"{self.peer}: {missing}")
        return key.strip()

    def __repr__(self) -> str:
        return f"NodeSpec(url={self.url!r}, kind={self.kind!r})"


def _check_url(url: str) -> None:
    if "@" in url:
        # Addresses appear in tables and logs, so the password must not be part of one; nor is it repeated here.
        raise ValueError("expected an address without user and password; set api_key instead")
    if not _is_url(url):
        raise ValueError(f"{url!r}: expected an address such as http://host:8000")
    if "?" in url or "#" in url:
        raise ValueError("expected an address without a query (?) or fragment (#)")


def _is_url(url: str) -> bool:
    try:
        address = urlsplit(url)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False
