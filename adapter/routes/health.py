"""GET /healthz, GET /readyz and GET /nodes"""

from __future__ import annotations

from time import time

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from adapter.life import Life
from adapter.models import Models
from adapter.routes.answers import json_answer
from adapter.schema.health import Health, NodeRow, NodeTable
from subnet.client import RemoteManager
from subnet.client.remote import Remote
from subnet.client.status import Status
from subnet.errors import NoNodeAvailable, SessionClosed


@get("/healthz", name="healthz")
async def healthz() -> ASGIResponse:
    return json_answer(Health(status="ok"))


@get("/readyz", name="readyz")
async def readyz(models: NamedDependency[Models], life: NamedDependency[Life]) -> ASGIResponse:
    if life.leaving:
        raise SessionClosed("The gateway is shutting down.")
    if not models.cards():
        raise NoNodeAvailable("No node serves a model now.", retry_after=1.0)
    return json_answer(Health(status="ok", models=sorted(models.cards())))


@get("/nodes", name="list_nodes")
async def list_nodes(remotes: NamedDependency[RemoteManager]) -> ASGIResponse:
    now = int(time())
    rows = [_row(remote, remotes.status(remote), now) for remote in remotes.remotes]
    return json_answer(NodeTable(time=now, nodes=rows))


def _row(remote: Remote, status: Status, now: int) -> NodeRow:
    row = NodeRow(
        peer=remote.peer,
        state=status.state,
        since=now - int(status.seconds),
        fault=status.why,
        requests=remote.running,
    )
    info = remote.info
    if info is None:
        return row
    said = {name: getattr(info, name) for name in row.__struct_fields__ if hasattr(info, name)}
    return msgspec.structs.replace(row, model=info.card.id, context_length=info.card.context_length, **said)
