"""Evidence that requests wait in the queue of their server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from subnet.http.client import HttpClient
from subnet.http.node_spec import Kind, NodeSpec
from subnet.http.queue_watch import QueueWatcher
from tests.provider import Provider, Script, error_response, json_response, raw

METRICS = "llamacpp:requests_processing 1\nllamacpp:requests_deferred %s\n"


@dataclass
class Activity:
    """What a process sees of its server, and the time."""

    running: int = 5
    last_received: float = 1000.0
    now: float = 1000.0


@asynccontextmanager
async def watcher_of(
    activity: Activity,
    metrics: Script,
    slots: int = 2,
    kind: Kind = "llama-server",
    first_token_timeout: float | None = None,
) -> AsyncIterator[tuple[QueueWatcher, Provider]]:
    routes = {"/metrics": metrics, "/props": json_response({"total_slots": slots})}
    async with Provider(routes=routes) as provider:
        spec = NodeSpec(url=provider.url, kind=kind, first_token_timeout=first_token_timeout)
        async with HttpClient(spec) as http:
            yield QueueWatcher(spec, http, activity, lambda: activity.now), provider


async def test_a_server_restarted_with_more_slots() -> None:
    """The number of slots is read again once the last answer has expired."""
    activity = Activity()
    async with watcher_of(activity, error_response(404)) as (watcher, provider):
        assert await watcher.has_queue()
        provider.routes["/props"] = json_response({"total_slots": 8})
        assert await watcher.has_queue()
        activity.now = activity.last_received = 1100.0
        assert not await watcher.has_queue()


@pytest.mark.parametrize(("running", "silence", "expected"), [(3, 0.0, True), (2, 0.0, False), (3, 60.0, False)])
async def test_more_requests_than_slots(running: int, silence: float, expected: bool) -> None:
    """More requests than slots are evidence of a queue only while the server sends something."""
    activity = Activity(running, last_received=1000.0 - silence)
    async with watcher_of(activity, error_response(404)) as (watcher, _):
        assert await watcher.has_queue() is expected


@pytest.mark.parametrize(("running", "expected"), [(2, True), (1, False)])
async def test_a_server_with_one_slot(running: int, expected: bool) -> None:
    """A server that is known to answer one request at a time is asked nothing."""
    async with watcher_of(Activity(running), error_response(404), kind="transformers") as (watcher, provider):
        assert await watcher.has_queue() is expected
        assert not provider.requests


async def test_keep_alives_while_the_only_slot_is_in_use() -> None:
    """A request that waits for the only slot is kept alive, until the watch stops."""
    async with watcher_of(
        Activity(running=2), error_response(404), kind="transformers", first_token_timeout=0.03
    ) as it:
        kept_alive = asyncio.Event()
        with it[0].watch(kept_alive.set):
            await asyncio.wait_for(kept_alive.wait(), 10)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("2.0", True), ("1e+01", True), ("0", False), ("0.0", False)]
    + [(value, False) for value in ("1.2.3", "e+", ".", "1e", "NaN", "x", "")],
)
async def test_metrics(value: str, expected: bool) -> None:
    """A positive gauge means a queue; one that is not a number counts as none."""
    async with watcher_of(Activity(running=0), raw(METRICS % value)) as (watcher, _):
        assert await watcher.has_queue() is expected
