"""What `adapter serve` and `adapter up` do: put the parts together, and take them apart again."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from urllib.parse import urlsplit

import msgspec

from adapter.app import build_app
from adapter.life import Life
from adapter.local_nodes import LocalNode, LocalNodes
from adapter.serving import bind
from adapter.serving import serve as serve_app
from adapter.settings import Settings
from subnet.authorizers import AuthorizerBase, TokenAuthorizer
from subnet.client import Limits, RemoteManager, SessionManager
from subnet.client.hedge import Hedger
from subnet.client.policies import POLICIES
from subnet.errors import SettingsError
from subnet.models.resolve import resolve

Report = Callable[[str], None]
# How long a start waits for a first node, to say which model it serves. In seconds.
_PATIENCE = 3.0


def with_model(settings: Settings, report: Report) -> Settings:
    """The settings of `up` with a path as its model: fetched once, before any node starts, where a progress bar is
    seen and Ctrl-C works. Raises SettingsError.
    """
    if settings.engine != "llama.cpp":
        return settings
    return msgspec.structs.replace(settings, model=str(resolve(settings.model, report)))


async def serve(settings: Settings, report: Report) -> None:
    """A gateway in front of `settings.nodes`, until a signal. Raises SettingsError."""
    if not settings.nodes:
        raise SettingsError("no node is named: give --node http://host:9000, or run `adapter up`")
    _check_addresses(settings.nodes)
    await _gateway(settings, settings.nodes, report)


async def up(settings: Settings, report: Report) -> None:
    """A gateway and local nodes, until a signal. Raises SettingsError."""
    _check_addresses(settings.nodes)
    secret = settings.secret or secrets.token_urlsafe(24)
    count = settings.local_nodes
    bind(settings.host, settings.port).close()
    nodes = [LocalNode(f"node {n + 1}", _arguments(settings), secret, report) for n in range(count)]
    report(f"starting {count} node{'s' if count > 1 else ''}")
    started = monotonic()
    async with LocalNodes(nodes) as addresses:
        report(f"{count} node{'s' if count > 1 else ''} up in {monotonic() - started:.1f} s")
        settings = msgspec.structs.replace(settings, secret=secret)
        await _gateway(settings, [*addresses, *settings.nodes], report)
        report("stopping")


def _check_addresses(nodes: Sequence[str]) -> None:
    for node in nodes:
        try:
            address = urlsplit(node)
            known = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        except ValueError:
            known = False
        if not known:
            raise SettingsError(f"--node {node!r}: expected an address like http://host:9000")


async def _gateway(settings: Settings, nodes: Sequence[str], report: Report) -> None:
    authorizer: AuthorizerBase | None = TokenAuthorizer(settings.secret) if settings.secret else None
    listener = bind(settings.host, settings.port)
    policy = POLICIES[settings.policy]()
    async with RemoteManager(
        nodes, authorizer=authorizer, policy=policy, probe_timeout=settings.probe_timeout
    ) as remote_manager:
        hedger = Hedger(settings.hedge_quantile, settings.hedge_share)
        session_manager = SessionManager(remote_manager, authorizer, limits=_limits(settings), hedger=hedger)
        life = Life()
        app = build_app(settings, remote_manager, session_manager, life)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await remote_manager.ready()
        address = f"http://{settings.host}:{listener.getsockname()[1]}"
        await serve_app(app, listener, life, report, _banner(address, remote_manager))


def _limits(settings: Settings) -> Limits:
    return Limits(
        first_token=settings.first_token_timeout,
        prefill_rate=settings.prefill_rate,
        stall=settings.stall_timeout,
        total=settings.total_timeout,
        attempts=settings.attempts,
        patience=settings.patience,
    )


def _arguments(settings: Settings) -> list[str]:
    """Of `subnet node`, for each of the local nodes; they share the cores that the gateway leaves."""
    threads = settings.threads or max(1, ((os.cpu_count() or 2) - 1) // settings.local_nodes)
    given = {
        "--engine": settings.engine,
        "--model": settings.model,
        "--concurrency": settings.concurrency,
        "--context-length": settings.context_length,
        "--threads": threads,
        "--log-level": "warning",
        "--port": 0,
    }
    return [part for flag, value in given.items() if value is not None for part in (flag, str(value))]


def _banner(address: str, remote_manager: RemoteManager) -> str:
    models = list(remote_manager.models())
    curl = (
        f"  curl {address}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model": "{models[0] if models else "MODEL"}", "stream": true, '
        f'"messages": [{{"role": "user", "content": "Hello!"}}]}}\''
    )
    return (
        f"\nready on {address}  (base_url={address}/v1, any api_key)\n"
        f"model: {', '.join(models) or 'none yet: no node has answered'}\n\n{curl}\n"
    )
