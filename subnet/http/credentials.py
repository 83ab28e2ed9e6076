"""Address and credentials of a server: URLs, API keys, headers, proxies and certificates."""

from __future__ import annotations

import re
import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from subnet.errors import SettingsError, Unauthorized
from subnet.http.loopback import is_loopback
from subnet.http.node_spec import NodeSpec

_VERSIONED_PATH = re.compile(r"/v\d\w*(/|$)")
_KEY_CHARACTERS = re.compile(r"[!-~]+")
_HEADER_NAME = re.compile(r"[\w-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[ -~]*")
# Minimum length of a value to be redacted: shorter ones are ordinary words.
_MIN_SECRET = 8


class Credentials:
    """Address, headers, proxy and TLS context for the server of `spec`.

    `v1` is the base of the OpenAI-compatible paths: the address itself if its path has a version (".../v1",
    ".../v1beta/openai"), else the address with "/v1" appended. `root` is the address without a trailing "/v1". The API
    key is read whenever it is needed, and is never part of a repr.

    Raises SettingsError for an unusable CA bundle or header.
    """

    def __init__(self, spec: NodeSpec) -> None:
        _check_headers(spec)
        self._spec = spec
        url = spec.url.rstrip("/")
        self.root = url.removesuffix("/v1")
        self.v1 = url if _VERSIONED_PATH.search(urlsplit(url).path) else f"{url}/v1"
        self.proxy = spec.proxy or _environment_proxy(url)
        self.ssl = _ssl(spec)

    def url(self, path: str) -> str:
        """Return the URL of `path`: relative to `v1` if it begins with /v1/, else to `root`."""
        return self.v1 + path.removeprefix("/v1") if path.startswith("/v1/") else self.root + path

    def headers(self) -> dict[str, str]:
        """Return the authorization header and the operator's additional headers, which take precedence.

        Raises Unauthorized if the API key is missing or invalid.
        """
        headers = {name.lower(): value for name, value in self._spec.headers.items()}
        key = self._key()
        return headers if key is None else {"authorization": f"Bearer {key}"} | headers

    def redact(self, text: str) -> str:
        """Replace all secrets in `text` by "***", because servers may repeat the key that they reject."""
        for value in self.headers().values():
            for secret in (value, value.partition(" ")[2]):
                text = text.replace(secret, "***") if len(secret) >= _MIN_SECRET else text
        return text

    def _key(self) -> str | None:
        try:
            key = self._spec.key()
        except SettingsError as error:
            raise Unauthorized(error.message) from error
        if key is not None and not _KEY_CHARACTERS.fullmatch(key):
            raise Unauthorized(f"{self._spec.peer}: the API key contains invalid characters")
        return key


def _check_headers(spec: NodeSpec) -> None:
    for name, value in spec.headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise SettingsError(f"{spec.peer}: headers: {name!r} contains invalid characters")


def _environment_proxy(url: str) -> str | None:
    """Return the HTTP proxy from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; None for loopback addresses."""
    host = urlsplit(url).hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies_environment()
    address = proxies.get(urlsplit(url).scheme) or proxies.get("all") or ""
    proxy = address if "://" in address else f"http://{address}"
    return proxy if address and proxy.startswith("http") else None


def _ssl(spec: NodeSpec) -> ssl.SSLContext | None:
    if spec.ca_bundle is None:
        return None
    try:
        return ssl.create_default_context(cafile=spec.ca_bundle)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"{spec.peer}: ca_bundle: cannot load {spec.ca_bundle}: {reason}") from error
