"""Where a server is and as whom it is asked: addresses, keys, proxies, certificates."""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from subnet.errors import SettingsError, Unauthorized
from subnet.http.node_spec import NodeSpec

_VERSION = re.compile(r"/v\d\w*(/|$)")
_KEY = re.compile(r"[!-~]+")
_NAME = re.compile(r"[\w-]+", re.ASCII)
_VALUE = re.compile(r"[ -~]*")
# Shorter ones are no secrets, but words.
_SECRET = 8


class Access:
    """What `spec` says of the way to a server. Keys are read when they are needed, and are in no repr.

    `v1` is where the OpenAI-compatible paths begin: the address itself if it has a version in it (".../v1",
    ".../v1beta/openai"), else "/v1" below it. `root` is the address without a "/v1" at its end. Raises SettingsError
    for a bundle or a header that cannot be used.
    """

    def __init__(self, spec: NodeSpec) -> None:
        _check_headers(spec)
        self._spec = spec
        url = spec.url.rstrip("/")
        self.root = url.removesuffix("/v1")
        self.v1 = url if _VERSION.search(urlsplit(url).path) else f"{url}/v1"
        self.proxy = spec.proxy or _environment_proxy(url)
        self.ssl = _ssl(spec)

    def url(self, path: str) -> str:
        """A path that begins with /v1/ is one of `v1`, any other of `root`."""
        return self.v1 + path.removeprefix("/v1") if path.startswith("/v1/") else self.root + path

    def headers(self) -> dict[str, str]:
        """What proves who asks, and what the operator adds, which wins. Raises Unauthorized without its key."""
        headers = {name.lower(): value for name, value in self._spec.headers.items()}
        key = self._key()
        return headers if key is None else {"authorization": f"Bearer {key}"} | headers

    def hide(self, text: str) -> str:
        """`text` without anything that proves who asks: servers like to repeat the key that they refuse."""
        for value in self.headers().values():
            for secret in (value, value.partition(" ")[2]):
                text = text.replace(secret, "***") if len(secret) >= _SECRET else text
        return text

    def _key(self) -> str | None:
        try:
            key = self._spec.key()
        except SettingsError as error:
            raise Unauthorized(error.message) from error
        if key is not None and not _KEY.fullmatch(key):
            raise Unauthorized(f"{self._spec.peer}: the API key contains invalid characters")
        return key


def _check_headers(spec: NodeSpec) -> None:
    for name, value in spec.headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise SettingsError(f"{spec.peer}: headers: {name!r} contains invalid characters")


def _environment_proxy(url: str) -> str | None:
    """What HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say, if it is a proxy for HTTP; the own machine is never
    behind one.
    """
    host = urlsplit(url).hostname or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies_environment()
    found = proxies.get(urlsplit(url).scheme) or proxies.get("all") or ""
    proxy = found if "://" in found else f"http://{found}"
    return proxy if found and proxy.startswith("http") else None


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
        reason = error.strerror or error
        raise SettingsError(f"{spec.peer}: ca_bundle: cannot load {spec.ca_bundle}: {reason}") from error
