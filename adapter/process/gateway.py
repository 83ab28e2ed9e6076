"""Gateway process: builds the services and serves them."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from adapter.app import build_app
from adapter.auth.clients import client_at
from adapter.config import ModelSpec, Settings
from adapter.counts import CountStore
from adapter.lifecycle import Lifecycle
from adapter.process.fd_passing import FdReceiver
from adapter.process.log_handler import BatchingHandler
from adapter.process.serve import Ready, serve
from adapter.process.supervisor import Report
from adapter.server.connections import Connections, HttpLimits, default_max_connections
from subnet import Limits, RemoteManager, SessionManager
from subnet.artefact_cache import ArtefactCache, default_folder
from subnet.authorizers import AuthorizerBase, TokenAuthorizer
from subnet.budget import Budget
from subnet.client.race import Hedger
from subnet.detect.upstream_protocol import UpstreamProtocol
from subnet.http.node_spec import NodeSpec
from subnet.log_format import LineFormatter
from subnet.pool.policies.policy_registry import POLICIES

logger = logging.getLogger(__name__)

# Allocations between collections of the youngest generation. Reference counting frees nearly all objects of a request.
_GC_THRESHOLD = 30_000


def freeze_startup_objects() -> None:
    """Exclude all existing objects, such as modules and services, from garbage collection. To be called once, after
    startup: a full collection would block every stream.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, *gc.get_threshold()[1:])


# Seconds that startup waits for the first healthy node, and then for the other nodes to be detected.
_FIRST_NODE_TIMEOUT = 3.0
_OTHER_NODES_TIMEOUT = 1.0


def set_up_logging(level: str) -> None:
    """Log to standard error from `level` up, uvicorn only from warnings up."""
    # What the format does not show need not be looked up for each line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = BatchingHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.root.level))


async def run(
    settings: Settings,
    source: socket.socket | FdReceiver,
    report: Report,
    ready: Ready,
    report_node: Report | None = None,
    lifecycle: Lifecycle | None = None,
    counts: CountStore | None = None,
) -> None:
    """Run a gateway in front of `settings.nodes` until SIGINT or SIGTERM, serving the connections of `source`.

    `report` prints lines for the person who runs the command. `report_node` prints those about detected servers, by
    default like `report`. `ready` is called with the names of the models when the gateway serves. Requests are counted
    in `counts`, by default in memory.
    """
    policy = POLICIES[settings.policy or "round-robin"]()
    if not policy.uses_weights and any(node.weight != 1 or node.model_weight for node in settings.nodes):
        logger.warning("the weights of nodes have no effect with the policy %s", settings.policy)
    nodes = [UpstreamProtocol(node, authorizer_of(node, settings), report_node or report) for node in settings.nodes]
    async with RemoteManager(
        nodes,
        policy=policy,
        health_check_timeout=settings.health_check_timeout,
        waiting=Budget("Waiting requests", settings.max_waiting, settings.max_client_share),
    ) as remote_manager:
        hedger = Hedger(settings.hedge_quantile, settings.hedge_share)
        limits = limits_of(settings)
        model_limits = {name: _model_limits(spec, limits) for name, spec in settings.models.items()}
        session_manager = SessionManager(remote_manager, limits=limits, model_limits=model_limits, hedger=hedger)
        lifecycle = lifecycle or Lifecycle()
        cache = ArtefactCache(default_folder())
        app = build_app(settings, remote_manager, session_manager, lifecycle, cache, counts)
        await _wait_for_nodes(remote_manager, nodes)
        freeze_startup_objects()
        await serve(
            app,
            source,
            lifecycle,
            report,
            lambda: ready(list(remote_manager.models())),
            shutdown_delay=settings.shutdown_delay,
            drain_timeout=settings.drain_timeout,
            idle_timeout=settings.client_idle_timeout,
            connections=_connections(settings),
        )


def authorizer_of(node: NodeSpec, settings: Settings) -> AuthorizerBase | None:
    """Return what authenticates gateway and node to each other; None without a secret."""
    secret = node.secret or settings.secret
    return TokenAuthorizer(secret, max_clock_skew=settings.max_clock_skew) if secret else None


async def _wait_for_nodes(remote_manager: RemoteManager, nodes: Sequence[UpstreamProtocol]) -> None:
    """Wait for a healthy node and for the detection of all nodes, for at most a few seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_NODE_TIMEOUT):
            await remote_manager.ready()
        async with asyncio.timeout(_OTHER_NODES_TIMEOUT):
            for node in nodes:
                await node.checked.wait()


def _connections(settings: Settings) -> Connections:
    maximum = settings.max_connections or default_max_connections()
    budget = Budget("Connections", maximum, settings.max_client_share)
    return Connections(budget, client_at, HttpLimits(settings.max_head, settings.max_fields))


def _model_limits(spec: ModelSpec, limits: Limits) -> Limits:
    return msgspec.structs.replace(
        limits,
        first_token_timeout=spec.first_token_timeout or limits.first_token_timeout,
        inter_token_timeout=spec.inter_token_timeout or limits.inter_token_timeout,
        chat_first_token_timeout=spec.first_token_timeout or limits.chat_first_token_timeout,
        chat_inter_token_timeout=spec.inter_token_timeout or limits.chat_inter_token_timeout,
        attempt_timeout=spec.attempt_timeout,
    )


def limits_of(settings: Settings) -> Limits:
    """Return the timeouts and retry limits that `settings` give to all models."""
    return Limits(
        first_token_timeout=settings.first_token_timeout,
        prefill_rate=settings.prefill_rate,
        inter_token_timeout=settings.inter_token_timeout,
        chat_first_token_timeout=settings.chat_first_token_timeout,
        chat_inter_token_timeout=settings.chat_inter_token_timeout,
        keep_alive_timeout=settings.keep_alive_timeout,
        answer_timeout=settings.answer_timeout,
        retry_timeout=settings.retry_timeout,
        max_total_attempts=settings.max_total_attempts,
        failover_timeout=settings.failover_timeout,
        max_retry_after=settings.max_retry_after,
        max_attempts=settings.max_attempts,
        queue_timeout=settings.queue_timeout,
    )
