"""What clients and operators see when nodes of one model have different weights."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from adapter.config import Settings
from subnet.errors import NodeLost
from subnet.node_info import Capabilities
from subnet.protocols.mock import MockProtocol
from tests.fakes import ASK, events_of, gateway, saying

CHAT = "/v1/chat/completions"
STREAMED = {**ASK, "stream": True}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": False}}


def nodes_of(other: str, **more: Any) -> tuple[MockProtocol, MockProtocol]:
    """Return a node that is lost in mid-answer, and one with other weights."""
    return saying("He", NodeLost("gone"), peer="q8", weights="a" * 64, **more), saying(
        other, peer="q4", weights="b" * 64, **more
    )


async def test_a_repeated_beginning() -> None:
    """If the other node repeats the beginning, the client gets one answer, and no divergence is counted."""
    async with gateway(*nodes_of("Hello")) as url, httpx.AsyncClient(base_url=url) as http:
        text = (await http.post(CHAT, json=STREAMED)).text
        metrics = (await http.get("/metrics")).text
    assert "\n: nodes q8, q4; replayed 2 tokens\n\n" in text
    assert 'adapter_diverged_answers_total{model="mock"} 1.0' not in metrics


async def test_an_answer_that_diverges(caplog: pytest.LogCaptureFixture) -> None:
    """If it does not, the answer is continued; the stream's comment, the access log and the metrics say so."""
    with caplog.at_level(logging.INFO, "adapter.access"):
        async with gateway(*nodes_of("Salut"), settings=Settings()) as url, httpx.AsyncClient(base_url=url) as http:
            response = await http.post(CHAT, json=STREAMED)
            metrics = (await http.get("/metrics")).text
    *chunks, _ = events_of(response.content)
    assert "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]) == "HeSalut"
    assert "\n: nodes q8, q4, q4; diverged\n\n" in response.text
    line = next(json.loads(record.getMessage()) for record in caplog.records if record.name == "adapter.access")
    assert line["diverged"] is True
    assert 'adapter_diverged_answers_total{model="mock"} 1.0' in metrics


async def test_a_schema_ends_in_an_error() -> None:
    """An answer under a JSON schema that the other node does not repeat ends in an error event, without [DONE]."""
    capabilities = Capabilities(resume="exact", grammars=("json_schema",))
    nodes = nodes_of('{"a": 1}', capabilities=capabilities)
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post(CHAT, json={**STREAMED, "response_format": SCHEMA})
    events = events_of(response.content)
    assert response.status_code == 200
    assert events[-1]["error"]["code"] == "node_failed"
    assert "[DONE]" not in events


async def test_the_node_table_shows_weights() -> None:
    """GET /nodes has the beginning of the fingerprint of each model, null if it is not known."""
    async with gateway(*nodes_of("Hello"), saying("x", peer="new")) as url, httpx.AsyncClient(base_url=url) as http:
        rows: list[Any] = [{"deployments": None}]
        while any(row["deployments"] is None for row in rows):
            rows = (await http.get("/nodes")).json()["nodes"]
    assert {row["peer"]: row["deployments"][0]["weights"] for row in rows} == {
        "q8": "a" * 12,
        "q4": "b" * 12,
        "new": None,
    }
