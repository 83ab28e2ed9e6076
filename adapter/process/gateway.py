"""One gateway process: its parts, put together and taken apart again."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from adapter.app import build_app
from adapter.config import ModelSpec, Settings
from adapter.lifecycle import Life
from adapter.process.fd_passing import Taker
from adapter.process.serve import Ready, serve
from adapter.process.supervisor import Report
from subnet import Limits, RemoteManager, SessionManager
from subnet.authorizers import AuthorizerBase, TokenAuthorizer
from subnet.client.race import Hedger
from subnet.detect.protocol import UpstreamProtocol
from subnet.pool.policies.registry import POLICIES

# New objects between two looks at the young ones. Nearly all that a request makes is freed without being looked for.
_YOUNG = 30_000


def settle() -> None:
    """Leave what there is now, modules and long-lived parts, out of all collections to come. To be called once, when
    everything has been put together: a look at it all would hold every stream up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])


# How long a start waits for a first node, and then for the others, to say which models they serve. In seconds.
_PATIENCE = 3.0
_MORE = 1.0


def set_up_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.root.level))


async def run(
    settings: Settings,
    source: socket.socket | Taker,
    report: Report,
    ready: Ready,
    found: Report | None = None,
) -> None:
    """A gateway in front of `settings.nodes` that serves the connections of `source`, until a signal. `report` gets
    lines for a person, and those about what stands at the nodes' addresses if nothing else gets them as `found`;
    `ready` is called with the models that are known, when it serves.
    """
    authorizer: AuthorizerBase | None = TokenAuthorizer(settings.secret) if settings.secret else None
    policy = POLICIES[settings.policy]()
    nodes = [UpstreamProtocol(node, authorizer, found or report) for node in settings.nodes]
    async with RemoteManager(
        nodes, authorizer=authorizer, policy=policy, health_check_timeout=settings.health_check_timeout
    ) as remote_manager:
        hedger = Hedger(settings.hedge_quantile, settings.hedge_share)
        limits = _limits(settings)
        of_models = {name: _limits_of(spec, limits) for name, spec in settings.models.items()}
        session_manager = SessionManager(
            remote_manager, authorizer, limits=limits, model_limits=of_models, hedger=hedger
        )
        life = Life()
        app = build_app(settings, remote_manager, session_manager, life)
        await _known(remote_manager, nodes)
        settle()
        await serve(
            app,
            source,
            life,
            report,
            lambda: ready(list(remote_manager.models())),
            drain_timeout=settings.drain_timeout,
        )


async def _known(remote_manager: RemoteManager, nodes: Sequence[UpstreamProtocol]) -> None:
    """Wait until nodes are there, for a moment."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await remote_manager.ready()
        async with asyncio.timeout(_MORE):
            for node in nodes:
                await node.checked.wait()


def _limits_of(spec: ModelSpec, limits: Limits) -> Limits:
    return msgspec.structs.replace(
        limits,
        first_token_timeout=spec.first_token_timeout or limits.first_token_timeout,
        inter_token_timeout=spec.inter_token_timeout or limits.inter_token_timeout,
        chat_first_token_timeout=spec.first_token_timeout or limits.chat_first_token_timeout,
        chat_inter_token_timeout=spec.inter_token_timeout or limits.chat_inter_token_timeout,
        attempt_timeout=spec.attempt_timeout,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        first_token_timeout=settings.first_token_timeout,
        prefill_rate=settings.prefill_rate,
        inter_token_timeout=settings.inter_token_timeout,
        chat_first_token_timeout=settings.chat_first_token_timeout,
        chat_inter_token_timeout=settings.chat_inter_token_timeout,
        retry_timeout=settings.retry_timeout,
        max_attempts=settings.max_attempts,
        queue_timeout=settings.queue_timeout,
    )
