"""What an operator says of a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from subnet.errors import SettingsError
from subnet.node_info import Lane, Modality

Kind = Literal["subnet", "vllm", "sglang", "llama-server", "ollama", "tgi", "lmstudio", "openai"]

_Seconds = Annotated[float, Meta(gt=0)]
_Text = Annotated[str, Meta(min_length=1)]


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node to be used. Only `url` must be known: the rest is found out, or has a sane default.

    `name` is what tables and logs call it, instead of its address. `models`: the names to serve under, with the
    server's own names of the same models; empty: all, by their own names, as at subnet nodes always. `tokenizer`: a
    folder, a tokenizer.json, a GGUF file or a hub reference, where the server's own cannot be had. `api_key_env` names
    a variable of the environment, `api_key_file` a file with the key; at most one of the three is given. `prefill`:
    whether it goes on with an answer that was begun. Times are in seconds; None: as for all nodes. Raises ValueError
    for what cannot be.
    """

    url: str
    name: _Text | None = None
    kind: Kind | None = None
    lane: Lane | None = None
    models: Mapping[_Text, _Text] = {}
    tokenizer: _Text | None = None
    context_length: Annotated[int, Meta(ge=1)] | None = None
    concurrency: Annotated[int, Meta(ge=1)] = 64
    modalities: tuple[Modality, ...] | None = None
    prefill: bool | None = None
    api_key: _Text | None = None
    api_key_env: _Text | None = None
    api_key_file: _Text | None = None
    headers: Mapping[str, str] = {}
    proxy: str | None = None
    ca_bundle: _Text | None = None
    connect_timeout: _Seconds = 5.0
    first_token_timeout: _Seconds | None = None
    inter_token_timeout: _Seconds | None = None
    attempt_timeout: _Seconds | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)
        if sum(key is not None for key in (self.api_key, self.api_key_env, self.api_key_file)) > 1:
            raise ValueError("only one of api_key, api_key_env and api_key_file can be given")
        if self.proxy is not None and not _is_url(self.proxy):
            raise ValueError("proxy: expected an address like http://host:3128")

    @classmethod
    def written(cls, text: str) -> dict[str, str]:
        """The fields that a line like "http://gpu-1:8000" or "vllm=http://gpu-1:8000" stands for."""
        kind, mark, url = text.partition("=")
        return {"kind": kind, "url": url} if mark and "/" not in kind else {"url": text}

    @property
    def peer(self) -> str:
        """What it is called in tables, logs and messages."""
        return self.name or self.url.rstrip("/")

    def check(self) -> None:
        """Raises SettingsError for a key or a CA bundle that cannot be read."""
        self.key()
        if self.ca_bundle is not None and not Path(self.ca_bundle).is_file():
            raise SettingsError(f"{self.peer}: ca_bundle: there is no file {self.ca_bundle}")

    def key(self) -> str | None:
        """The API key, as it is now. Raises SettingsError, which does not repeat it."""
        if self.api_key_env is not None:
            return self._present(os.environ.get(self.api_key_env), f"the environment has no {self.api_key_env}")
        if self.api_key_file is not None:
            try:
                key = Path(self.api_key_file).read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{self.peer}: no key can be read from {self.api_key_file}") from error
            return self._present(key, f"{self.api_key_file} is empty")
        return self.api_key

    def _present(self, key: str | None, missing: str) -> str:
        if key is None or not key.strip():
            raise SettingsError(f"{self.peer}: {missing}")
        return key.strip()

    def __repr__(self) -> str:
        return f"NodeSpec(url={self.url!r}, kind={self.kind!r})"


def _check_url(url: str) -> None:
    if "@" in url:
        # Addresses are shown in tables and logs. It is not repeated here either.
        raise ValueError("expected an address without user and password; a key is given as api_key")
    if not _is_url(url):
        raise ValueError(f"{url!r}: expected an address like http://host:8000")
    if "?" in url or "#" in url:
        raise ValueError("expected an address without ? and #")


def _is_url(url: str) -> bool:
    try:
        address = urlsplit(url)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False
