"""`GET /nodes` and `adapter nodes`: the state of every node and its reason."""

from __future__ import annotations

import asyncio
import socket
import time

import httpx
import msgspec
import pytest

from adapter.api.operator.types import DeploymentRow, NodeRow, NodeTable
from adapter.cli import run
from adapter.process.nodes_command import decode, fetch, format_table
from subnet import MockProtocol
from subnet.errors import EngineFailed, NodeBusy, NodeLost, SettingsError
from subnet.node_info import NodeInfo
from tests.fakes import ASK, gateway, saying


class Dead(MockProtocol):
    async def rpc_info(self) -> NodeInfo:
        raise NodeLost("cannot connect to dead: nobody is there")


async def test_the_table() -> None:
    """GET /nodes returns the state, load and reason of every node."""
    full = saying("", NodeBusy("full", retry_after=30.0), peer="full")
    async with gateway(full, saying("Hi", peer="well"), Dead(peer="dead")) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            for _ in range(2):
                assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
            table = msgspec.json.decode((await client.get("/nodes")).content, type=NodeTable)
    states = {row.peer: (row.state, row.requests) for row in table.nodes}
    assert states == {"full": ("full", 0), "well": ("healthy", 0), "dead": ("unreachable", 0)}
    faults = {row.peer: row.fault for row in table.nodes}
    assert faults["well"] is None
    assert faults["dead"] == "cannot connect to dead: nobody is there"
    assert (faults["full"] or "").startswith("the node rejected a request for lack of capacity; retry in ")
    assert all(0 <= table.time - row.since < 60 for row in table.nodes)
    assert abs(table.time - time.time()) < 60


async def test_a_breaker_in_the_table() -> None:
    """A node whose circuit breaker is open is listed with its last error."""
    async with gateway(saying("", EngineFailed("out of memory"))) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(3):
            await client.post("/v1/chat/completions", json=ASK)
        (row,) = (await client.get("/nodes")).json()["nodes"]
    assert row["state"] in ("breaker-open", "breaker-half-open")
    assert row["fault"].startswith("3 consecutive failures, last error: out of memory; ")


async def test_fetched_from_a_gateway() -> None:
    """The command decodes the response of GET /nodes; a trailing slash in the address does not matter."""
    async with gateway(saying("Hi", peer="http://gpu-1:9000")) as url:
        data = await asyncio.to_thread(fetch, url + "/")
        lines = format_table(decode(url, data)).splitlines()
    assert lines[0].split() == [
        *("address", "state", "for", "requests", "slots", "process", "engine", "lane", "card", "models", "reason")
    ]
    assert lines[1].split()[:2] == ["http://gpu-1:9000", "healthy"]


def row(peer: str, **changed: object) -> NodeRow:
    known = {"peer": peer, "state": "healthy", "since": 1000, "fault": None, "requests": 0}
    return msgspec.convert({**known, **changed}, NodeRow)


def deployment(model: str, card: str | None = None) -> DeploymentRow:
    return DeploymentRow(model=model, state="healthy", fault=None, priority=0, weight=1.0, card=card)


def test_columns() -> None:
    """Columns are aligned, unknown values are dashes, and lines have no trailing spaces."""
    well = row(
        "http://gpu-1:9000", requests=3, running=12, capacity=16, process=4711, model="m", models=["m", "n", "o"]
    )
    table = NodeTable(
        time=1000 + 90,
        nodes=[
            msgspec.structs.replace(
                well, engine="vllm", lane="token", deployments=[deployment("n"), deployment("m", "c1")]
            ),
            row("http://b:1", state="unreachable", since=1085, fault="cannot connect"),
        ],
    )
    assert format_table(table).splitlines() == [
        "address            state        for    requests  slots  process  engine  lane   card  models  reason",
        "http://gpu-1:9000  healthy      1m30s  3         12/16  4711     vllm    token  c1    m +2    -",
        "http://b:1         unreachable  5s     0         -      -        -       -      -     -       cannot connect",
    ]
    assert format_table(NodeTable(time=0, nodes=[])) == "no nodes"


@pytest.mark.parametrize(
    ("formats", "reason"),
    [
        ({"tool_format": "unknown", "reasoning": None}, "unknown format of tool calls: m"),
        ({"tool_format": "hermes", "reasoning": "unknown"}, "unknown format of reasoning: m"),
        ({"tool_format": "hermes", "reasoning": None}, "-"),
        ({}, "-"),
    ],
)
def test_unknown_formats(formats: dict[str, str | None], reason: str) -> None:
    """A model whose way of writing calls or reasoning is unknown is named, unless there is a worse reason."""
    models = [msgspec.structs.replace(deployment("m"), **formats)]
    assert format_table(NodeTable(time=1000, nodes=[row("a", deployments=models)])).endswith("  " + reason)
    assert format_table(NodeTable(time=1000, nodes=[row("a", deployments=models, fault="down")])).endswith("  down")


@pytest.mark.parametrize(
    ("seconds", "age"), [(-1, "0s"), (59, "59s"), (61, "1m01s"), (3600, "1h00m"), (86399, "23h59m"), (90000, "1d01h")]
)
def test_ages(seconds: int, age: str) -> None:
    """Ages have at most two units."""
    assert format_table(NodeTable(time=1000 + seconds, nodes=[row("a")])).split()[13] == age


def test_a_node_cannot_write_to_the_terminal() -> None:
    """Control characters in text from nodes are printed as question marks."""
    table = NodeTable(time=1000, nodes=[row("a", model="\x1b[31mred\n", fault="\x07")])
    assert format_table(table).splitlines()[1].split()[-2:] == ["?[31mred?", "?"]


def test_no_gateway() -> None:
    """An unreachable gateway raises an error with its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SettingsError) as caught:
        fetch(f"http://127.0.0.1:{port}")
    assert str(caught.value) == (
        f"cannot reach a gateway at http://127.0.0.1:{port}: Connection refused; use --url if it runs elsewhere"
    )


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "file:///etc/passwd", "http://", "http://a:b"])
def test_not_an_address(url: str) -> None:
    """An invalid address raises a SettingsError that contains it."""
    with pytest.raises(SettingsError, match=url):
        fetch(url)


async def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints the table, or with --json the response of the gateway."""
    async with gateway(saying("Hi", peer="http://gpu-1:9000")) as url:
        await asyncio.to_thread(run, ["nodes", "--url", url])
        assert "http://gpu-1:9000  healthy" in capsys.readouterr().out
        await asyncio.to_thread(run, ["nodes", "--url", url, "--json"])
        assert msgspec.json.decode(capsys.readouterr().out)["nodes"][0]["state"] == "healthy"


def test_the_command_without_a_gateway() -> None:
    """The command exits with one line if the gateway is unreachable."""
    with pytest.raises(SystemExit, match=r"^adapter: cannot reach a gateway at http://127\.0\.0\.1:9: "):
        run(["nodes", "--url", "http://127.0.0.1:9"])


async def test_another_server() -> None:
    """A server that is not a gateway raises an error that says so."""
    async with gateway(saying("Hi")) as url:
        with pytest.raises(SettingsError, match="GET /nodes returned 404"):
            await asyncio.to_thread(fetch, url + "/v1")
    for data in (b"<html>", b"[]", b'{"nodes": []}'):
        with pytest.raises(SettingsError, match="is not a gateway"):
            decode("http://a", data)
