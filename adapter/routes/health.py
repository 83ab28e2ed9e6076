"""GET /healthz, GET /readyz and GET /nodes"""

from __future__ import annotations

from time import time

import msgspec

from adapter.http.request import Request
from adapter.http.response import Response
from adapter.routes.answers import json_answer
from adapter.schema.health import Health, NodeRow, NodeTable
from subnet.client.remote import Remote
from subnet.client.status import Status
from subnet.errors import NoNodeAvailable, SessionClosed


async def healthz(request: Request) -> Response:
    return json_answer(Health(status="ok"))


async def readyz(request: Request) -> Response:
    models = request.parts.models
    if request.parts.life.leaving:
        raise SessionClosed("The gateway is shutting down.")
    if not models.cards():
        raise NoNodeAvailable("No node is currently serving a model.", retry_after=1.0)
    return json_answer(Health(status="ok", models=sorted(models.cards())))


async def list_nodes(request: Request) -> Response:
    remotes = request.parts.remotes
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
    first = info.card(None)
    if first is not None:
        said |= {"model": first.id, "lane": first.lane, "context_length": first.context_length or None}
    return msgspec.structs.replace(row, models=[card.id for card in info.cards], **said)
