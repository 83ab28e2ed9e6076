"""Command `adapter nodes`: print the nodes of a running gateway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from adapter.api.operator.types import NodeRow, NodeTable
from subnet.errors import SettingsError

URL = "http://127.0.0.1:8000"
"""Default address of a gateway."""
# In seconds. The gateway answers from memory.
_TIMEOUT = 5.0
_COLUMNS = ("address", "state", "for", "requests", "slots", "process", "engine", "lane", "card", "models", "reason")


def fetch(url: str, key: str | None = None) -> bytes:
    """Return the JSON response of the gateway at `url` to GET /nodes, authenticated with `key`. Raises SettingsError if
    there is no gateway at `url` or the key is not valid.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError(f"--url {url}: expected an address such as {URL}")
    try:
        # Proxy settings of the environment are ignored, as the gateway ignores them for its nodes.
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        request = Request(url.rstrip("/") + "/nodes", headers=headers)
        with build_opener(ProxyHandler({})).open(request, timeout=_TIMEOUT) as response:
            return bytes(response.read())
    except HTTPError as error:
        if error.code == 401:
            raise SettingsError(f"{url} requires an API key: pass it with --api-key KEY") from error
        raise SettingsError(f"{url} is not a gateway: GET /nodes returned {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        message = getattr(reason, "strerror", None) or reason
        raise SettingsError(f"cannot reach a gateway at {url}: {message}; use --url if it runs elsewhere") from error


def decode(url: str, data: bytes) -> NodeTable:
    """Decode the response of GET /nodes. Raises SettingsError if it is not one."""
    try:
        return msgspec.json.decode(data, type=NodeTable)
    except msgspec.DecodeError as error:
        raise SettingsError(f"{url} is not a gateway, or has a different version: {error}") from error


def format_table(table: NodeTable) -> str:
    """Format the table for a terminal: one line per node, in aligned columns."""
    if not table.nodes:
        return "no nodes"
    rows = [_COLUMNS, *(tuple(_cells(row, table.time)) for row in table.nodes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(row: NodeRow, now: int) -> Iterator[str]:
    slots = None if row.running is None else f"{row.running}/{row.capacity or '-'}"
    cells = (row.peer, row.state, _format_age(now - row.since), row.requests, slots, row.process or None)
    for cell in (*cells, row.engine, row.lane, _card(row), _models(row), row.fault or _unknown_format(row)):
        # Text from nodes could contain control sequences of the terminal.
        yield "".join(letter if letter.isprintable() else "?" for letter in str("-" if cell is None else cell))


def _card(row: NodeRow) -> str | None:
    return next((one.card for one in row.deployments or () if one.model == row.model), None)


def _unknown_format(row: NodeRow) -> str | None:
    """Return a note on the first model whose way of writing tool calls or reasoning is unknown."""
    for one in row.deployments or ():
        if "unknown" in (one.tool_format, one.reasoning):
            return f"unknown format of {'tool calls' if one.tool_format == 'unknown' else 'reasoning'}: {one.model}"
    return None


def _models(row: NodeRow) -> str | None:
    """Return the first model and the number of others."""
    more = len(row.models or ()) - 1
    return f"{row.model} +{more}" if more > 0 else row.model


def _format_age(seconds: int) -> str:
    if seconds < 60:
        return f"{max(0, seconds)}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 60:
        return f"{minutes}m{seconds % 60:02}s"
    return f"{hours}h{minutes % 60:02}m" if hours < 24 else f"{days}d{hours % 24:02}h"
