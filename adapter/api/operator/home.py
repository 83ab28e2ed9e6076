"""GET /: an HTML page for browsers, JSON for programs."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from html import escape

from adapter.api.common.body import json_response
from adapter.api.common.http_request import Request
from adapter.api.operator.types import Home
from adapter.server.responses import Response
from subnet.version import VERSION

_LINKS = {
    "models": "/v1/models",
    "nodes": "/nodes",
    "metrics": "/metrics",
    "health": "/healthz",
    "readiness": "/readyz",
    "openapi": "/openapi.json",
}
# Maximum number of models on the page: a provider may serve hundreds.
_MAX_SHOWN = 50
_STYLE = """\
:root { color-scheme: light dark; font: 16px/1.6 system-ui, sans-serif }
body { max-width: 42rem; margin: 4rem auto; padding: 0 1rem }
h1 { margin-bottom: 0; font-size: 1.5rem }
code, pre { font: 0.9rem/1.5 ui-monospace, monospace; background: color-mix(in srgb, currentcolor 8%, transparent) }
pre { padding: 0.8rem 1rem; overflow-x: auto; border-radius: 6px }
code { padding: 0.1rem 0.3rem; border-radius: 4px; overflow-wrap: anywhere }
pre code { padding: 0; background: none }
li { margin: 0.2rem 0 }
"""
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "vary": "accept",
}


async def home(request: Request) -> Response:
    """Handle GET /: name, version, models and links; HTML only for clients that accept it.

    If clients need an API key, version and models are omitted, as this page needs none.
    """
    services = request.services
    closed = bool(services.settings.api_keys)
    version = None if closed else VERSION
    models = None if closed else sorted(services.models.cards_with_aliases())
    if "text/html" not in (request.header(b"accept") or ""):
        return json_response(Home(version=version, models=models, links=_LINKS), headers={"vary": "accept"})
    # A proxy that terminates TLS sets this header. A client that forges it only changes its own page.
    scheme = "https" if request.header(b"x-forwarded-proto") == "https" else "http"
    base_url = f"{scheme}://{request.header(b'host') or '127.0.0.1:8000'}/v1"
    return Response(_page(base_url, version, models).encode(), headers=_HEADERS, media_type="text/html; charset=utf-8")


def _page(base_url: str, version: str | None, models: Sequence[str] | None) -> str:
    links = "\n".join(
        f'<li><a href="{path}">{escape(name)}</a> <code>{path}</code></li>' for name, path in _LINKS.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>subnet-adapter</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<h1>subnet-adapter {escape(version or "")}</h1>
<p>An OpenAI-compatible API in front of a subnet of inference nodes.</p>
<p>Point the OpenAI SDK, LangChain or a chat UI at this base URL:</p>
<pre><code>{escape(base_url)}</code></pre>
<h2>Models</h2>
{_models(models)}
<h2>Endpoints</h2>
<ul>
{links}
</ul>
</body>
</html>
"""


def _models(models: Sequence[str] | None) -> str:
    if models is None:
        return '<p>Listed at <a href="/v1/models">/v1/models</a> to clients with an API key.</p>'
    if not models:
        return '<p>None yet: no node is healthy. See <a href="/nodes">/nodes</a> for the reason.</p>'
    shown = "\n".join(f"<li><code>{escape(name)}</code></li>" for name in models[:_MAX_SHOWN])
    more = len(models) - _MAX_SHOWN
    rest = f'\n<p>and {more} more at <a href="/v1/models">/v1/models</a></p>' if more > 0 else ""
    return f"<ul>\n{shown}\n</ul>{rest}"
