"""Endpoints for monitoring: liveness, readiness, version, nodes and metrics."""

from __future__ import annotations

from time import time

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from adapter.api.common.body import error_response, json_response
from adapter.api.common.http_request import Request
from adapter.api.operator.types import DeploymentRow, Health, NodeRow, NodeTable, Version
from adapter.generation.model_registry import ModelRegistry
from adapter.server.responses import Response
from subnet.errors import NoNodeAvailable, SessionClosed
from subnet.node_info import short
from subnet.pool.deployment import Deployment
from subnet.pool.manager import RemoteManager
from subnet.pool.node import RemoteNode
from subnet.version import VERSION


async def healthz(request: Request) -> Response:
    """Handle GET /healthz, GET /health and GET /ping: the process responds, whether or not there is a model.

    vLLM, SGLang and llama.cpp have /health, and load generators do not start without it.
    """
    return json_response(Health(status="ok"))


async def show_version(request: Request) -> Response:
    """Handle GET /version."""
    return json_response(Version(version=VERSION))


async def readyz(request: Request) -> Response:
    """Handle GET /readyz: status 503 if the gateway is shutting down or no model is available.

    The error is returned, not raised: load balancers poll this endpoint, and each raised error is logged as a warning.
    If clients need an API key, the models are omitted, as this endpoint needs none.
    """
    services = request.services
    if services.lifecycle.draining:
        return error_response(SessionClosed("The gateway is shutting down."))
    if not services.models.cards():
        return error_response(NoNodeAvailable("No node is currently serving a model.", retry_after=1.0))
    models = [] if services.settings.api_keys else sorted(services.models.cards())
    return json_response(Health(status="ok", models=models))


async def list_nodes(request: Request) -> Response:
    """Handle GET /nodes."""
    remotes, models = request.services.remotes, request.services.models
    now = int(time())
    rows = [_row(remotes, models, remote, now) for remote in remotes.remotes]
    return json_response(NodeTable(time=now, nodes=rows))


def _row(remotes: RemoteManager, models: ModelRegistry, remote: RemoteNode, now: int) -> NodeRow:
    status = remotes.status(remote)
    row = NodeRow(
        peer=remote.peer,
        state=status.state,
        since=now - int(status.seconds),
        fault=status.reason,
        requests=remote.running,
    )
    info = remote.info
    if info is None:
        return row
    reported = {name: getattr(info, name) for name in row.__struct_fields__ if hasattr(info, name)}
    if not info.limited:
        reported["capacity"] = None
    reported["deployments"] = [_deployment_row(remotes, models, one) for one in remote.deployments]
    first = info.card(None)
    if first is not None:
        reported |= {"model": first.id, "lane": first.lane, "context_length": first.context_length or None}
    return msgspec.structs.replace(row, models=[card.id for card in info.cards], **reported)


def _deployment_row(remotes: RemoteManager, models: ModelRegistry, deployment: Deployment) -> DeploymentRow:
    status = remotes.deployment_status(deployment)
    found = None if deployment.card is None else models.found_format(deployment.card)
    return DeploymentRow(
        model=deployment.model,
        state=status.state,
        fault=status.reason,
        priority=deployment.priority,
        weight=deployment.weight,
        card=remotes.card_digest(deployment),
        weights=short(deployment.weights) or None,
        tool_format=msgspec.UNSET if found is None else found.tools,
        reasoning=msgspec.UNSET if found is None else found.reasoning,
    )


async def show_metrics(request: Request) -> Response:
    """Handle GET /metrics."""
    return Response(await request.services.metrics.to_text(), media_type=CONTENT_TYPE_LATEST)
