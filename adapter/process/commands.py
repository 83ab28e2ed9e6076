"""Commands `adapter serve` and `adapter up`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from time import monotonic

import msgspec

from adapter.config import Settings
from adapter.process import gateway, workers
from adapter.process.local_nodes import LocalNode, LocalNodes
from adapter.process.supervisor import Report
from subnet.errors import SettingsError
from subnet.http.credentials import Credentials
from subnet.http.node_spec import NodeSpec
from subnet.listening import bind, raise_file_limit, url_of
from subnet.models.resolve import resolve

# The demo model may ramble until its context is full, and most clients send no max_tokens.
_DEMO_MAX_TOKENS = 256


def resolve_model(settings: Settings, report: Report) -> Settings:
    """Return the settings of `up` with a local path as the model, after downloading it if necessary.

    This happens once, before any node starts, so that a progress bar is visible and Ctrl-C works. Raises SettingsError.
    """
    if settings.engine != "llama.cpp":
        return settings
    path = str(resolve(settings.model, report))
    if settings.model is None and settings.default_max_tokens is None:
        settings = msgspec.structs.replace(settings, default_max_tokens=_DEMO_MAX_TOKENS)
    return msgspec.structs.replace(settings, model=path)


async def serve(settings: Settings, report: Report) -> None:
    """Run a gateway in front of `settings.nodes` until SIGINT or SIGTERM. Raises SettingsError."""
    if not settings.nodes:
        raise SettingsError("no nodes configured: pass --node http://host:8000, or run `adapter up`")
    _validate(settings, report)
    raise_file_limit(report)
    await _gateway(settings, report)


async def up(settings: Settings, report: Report) -> None:
    """Run a gateway and local nodes until SIGINT or SIGTERM. Raises SettingsError."""
    _validate(settings, report)
    raise_file_limit(report)
    secret = settings.secret or secrets.token_urlsafe(24)
    count = settings.local_nodes
    bind(settings.host, settings.port).close()
    nodes = [LocalNode(f"node {n + 1}", _node_arguments(settings), secret, report) for n in range(count)]
    report(f"starting {count} node{'s' if count > 1 else ''}")
    started = monotonic()
    async with LocalNodes(nodes) as addresses:
        report(f"{count} node{'s' if count > 1 else ''} ready in {monotonic() - started:.1f} s")
        settings = with_local_nodes(settings, addresses, secret)
        await _gateway(settings, report)
        report("stopping")


def with_local_nodes(settings: Settings, addresses: Sequence[str], secret: str) -> Settings:
    """Return the settings of a gateway in front of the local nodes at `addresses`, which have `secret`, and its others.

    The secret of the local nodes says nothing about the others, if the operator set none.

    The default policy sends the next turn of a conversation to the node that has its prefix cached.
    """
    local = (NodeSpec(url=address, kind="subnet", secret=secret) for address in addresses)
    policy = settings.policy or "prefix-affinity"
    return msgspec.structs.replace(settings, nodes=(*local, *settings.nodes), policy=policy)


def _validate(settings: Settings, report: Report) -> None:
    """Raise SettingsError for mistakes that can be detected before anything is started, and report a risk."""
    settings.tool_formats()
    if (warning := settings.exposure()) is not None:
        report(warning)
    for node in settings.nodes:
        node.check()
        Credentials(node)


async def _gateway(settings: Settings, report: Report) -> None:
    with bind(settings.host, settings.port) as listener:
        address = url_of(listener, settings.host)
        run = gateway.run if settings.workers == 1 else workers.serve
        await run(
            settings,
            listener,
            report,
            lambda models: report(_banner(address, models, requires_key=bool(settings.api_keys))),
        )


def _node_arguments(settings: Settings) -> list[str]:
    """Return the arguments of `subnet node` for each local node. The nodes share the cores that the gateway leaves."""
    threads = settings.threads or max(1, ((os.cpu_count() or 2) - settings.workers) // settings.local_nodes)
    flags = {
        "--engine": settings.engine,
        "--model": settings.model,
        "--tokenizer": settings.tokenizer,
        "--concurrency": settings.concurrency,
        "--context-length": settings.context_length,
        "--threads": threads,
        "--log-level": "warning",
        "--port": 0,
    }
    return [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]


def _banner(address: str, models: Sequence[str], *, requires_key: bool) -> str:
    """Return the text to print once the gateway listens on `address`. `requires_key`: clients need an API key.

    The first line starts with "ready on", with or without models, as scripts wait for it.
    """
    head = f"\nready on {address}  (base_url: {address}/v1, api_key: {'one of api_keys' if requires_key else 'any'})\n"
    if not models:
        flags = f" --url {address}{' --api-key KEY' if requires_key else ''}"
        return f"{head}no model yet: no node is healthy; see `adapter nodes{flags}`\n"
    key = ' -H "authorization: Bearer $KEY"' if requires_key else ""
    curl = (
        f"  curl {address}/v1/chat/completions{key} -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model": "{models[0]}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}\''
    )
    return f"{head}models: {', '.join(models)}\n\n{curl}\n"
