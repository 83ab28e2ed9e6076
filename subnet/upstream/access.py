"""Where a server is and as whom it is asked: addresses, keys, proxies, certificates."""

from __future__ import annotations

import os
import re
import ssl
from base64 import b64encode
from ipaddress import ip_address
from pathlib import Path
from urllib.request import getproxies_environment, proxy_bypass

from yarl import URL

from subnet.errors import SettingsError, Unauthorized
from subnet.upstream.spec import NodeSpec

_VERSION = re.compile(r"/v\d\w*(/|$)")
_KEY = re.compile(r"[!-~]+")
_NAME = re.compile(r"[\w-]+", re.ASCII)
_VALUE = re.compile(r"[ -~]*")


class Access:
    """What `spec` says of the way to a server. Keys are read when they are needed, and are in no repr.

    `v1` is where the OpenAI-compatible paths begin: the address itself if it has a version in it (".../v1",
    ".../v1beta/openai"), else "/v1" below it. `root` is the address without a "/v1" at its end. A query (Azure has its
    version there) goes with every request. `shown` is the address without query, user and password, as are the others.
    Raises SettingsError for an address or a bundle that cannot be used.
    """

    def __init__(self, spec: NodeSpec) -> None:
        url = _url(spec.url)
        self._spec = spec
        _check_headers(spec)
        self._user = url.user, url.password
        self._query = url.query_string
        self.shown = str(url.with_user(None).with_query(None).with_fragment(None)).rstrip("/")
        self.root = self.shown.removesuffix("/v1")
        self.v1 = self.shown if _VERSION.search(url.path) else f"{self.shown}/v1"
        self.proxy = spec.proxy or _environment_proxy(url)
        self.ssl = _ssl(spec)

    def url(self, path: str) -> URL:
        """A path that begins with /v1/ is one of `v1`, any other of `root`."""
        below = path.removeprefix("/v1")
        url = URL(self.v1 + below if below != path and below.startswith("/") else self.root + path)
        return url.with_query(self._query) if self._query else url

    def headers(self) -> dict[str, str]:
        """What proves who asks, and what the operator adds, which wins. Raises Unauthorized where a key is missing."""
        headers = {}
        key, (user, password) = self._key(), self._user
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        elif user is not None:
            headers["authorization"] = _basic(user, password or "")
        return headers | {name.lower(): value for name, value in self._spec.headers.items()}

    def hide(self, text: str) -> str:
        """`text` without anything that proves who asks: servers like to repeat the key that they refuse."""
        for value in self.headers().values():
            for secret in (value, value.partition(" ")[2]):
                text = text.replace(secret, "***") if len(secret) >= 8 else text
        return text

    def _key(self) -> str | None:
        spec = self._spec
        if spec.api_key is not None:
            return self._usable(spec.api_key, "the setting")
        if spec.api_key_env is not None:
            return self._usable(os.environ.get(spec.api_key_env, ""), f"the variable {spec.api_key_env}")
        if spec.api_key_file is not None:
            return self._usable(self._read(spec.api_key_file), spec.api_key_file)
        return None

    def _read(self, path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise Unauthorized(f"no key for {self.root}: cannot read {path}: {error.strerror}") from error

    def _usable(self, key: str, where: str) -> str:
        key = key.strip()
        if not _KEY.fullmatch(key):
            raise Unauthorized(f"no key for {self.root}: {where} has none, or one with characters that no key has")
        return key


def _url(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise SettingsError(f"not the address of a server: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"not the address of a server, such as http://gpu-1:8000: {url.with_user(None)}")
    return url


def _check_headers(spec: NodeSpec) -> None:
    for name, value in spec.headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise SettingsError(f"the header {name!r} has characters that no header has")


def _environment_proxy(url: URL) -> str | None:
    """What HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say; the own machine is never behind a proxy."""
    host = url.host or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies_environment()
    return proxies.get(url.scheme) or proxies.get("all")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _ssl(spec: NodeSpec) -> ssl.SSLContext | None:
    if spec.ca_bundle is None:
        return None
    try:
        return ssl.create_default_context(cafile=spec.ca_bundle)
    except OSError as error:
        raise SettingsError(f"no certificates in {spec.ca_bundle}: {error.strerror or error}") from error


def _basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
