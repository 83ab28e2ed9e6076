"""Evidence that requests wait in the queue of their server: its Prometheus metrics, or its number of slots."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from typing import Protocol

from subnet.errors import NodeError, RequestError
from subnet.http.client import HttpClient
from subnet.http.node_spec import Kind, NodeSpec

# The gauge of waiting requests. vLLM docs, "Production Metrics"; SGLang docs, "Production Metrics" (--enable-metrics);
# Text Generation Inference docs, "Metrics"; llama.cpp tools/server/README.md, GET /metrics (--metrics).
_GAUGES: Mapping[Kind, str] = {
    "vllm": "vllm:num_requests_waiting",
    "sglang": "sglang:num_queue_reqs",
    "tgi": "tgi_queue_size",
    "llama-server": "llamacpp:requests_deferred",
}
# The path at which a server declares its slots, and the member. llama.cpp tools/server/README.md, GET /props.
_SLOTS: Mapping[Kind, tuple[str, str]] = {"llama-server": ("/props", "total_slots")}
# Number of slots of servers that declare none. transformers/cli/serving/utils.py, InferenceThread; with
# --continuous-batching it has more, but then a request that waits while others get tokens waits all the same.
_FIXED_SLOTS: Mapping[Kind, int] = {"transformers": 1}
# Time between two requests for the metrics, the same for a server that has none, and the limit of one request. In
# seconds.
_INTERVAL = 2.0
_RETRY_INTERVAL = 30.0
_TIMEOUT = 5.0


class ServerActivity(Protocol):
    """What this process sees of a server: its own running choices, and the time at which anything last arrived."""

    @property
    def running(self) -> int: ...

    @property
    def last_received(self) -> float: ...


class QueueWatcher:
    """Tells requests without a first token whether the server of `spec` has a queue. All of them share its answers.

    It has one if its metrics say so; or, where its slots are known, if this process runs more requests on it than
    there are slots, and some of them get tokens. Any other server counts as one without a queue.
    """

    def __init__(
        self,
        spec: NodeSpec,
        http: HttpClient,
        activity: ServerActivity | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._slots_at = None if spec.kind is None or activity is None else _SLOTS.get(spec.kind)
        self._slots: float = inf if spec.kind is None else _FIXED_SLOTS.get(spec.kind, inf)
        self._activity = activity
        gauge = None if spec.kind is None else _GAUGES.get(spec.kind)
        self._pattern = (
            None if gauge is None else re.compile(rf"^{gauge}(?:\{{[^}}\n]*\}})? +([0-9.eE+]+)", re.MULTILINE)
        )
        self._http = http
        self._clock = clock
        # Several times within the shortest timeout that a queue may extend.
        self._interval = min(_INTERVAL, (spec.first_token_timeout or 3 * _INTERVAL) / 3)
        self._waiting = False
        self._expires = 0.0
        self._lock = asyncio.Lock()

    @contextmanager
    def watch(self, keep_alive: Callable[[], None]) -> Iterator[QueueWatch]:
        """Call `keep_alive` from time to time while the server has a queue, until the block is left or `stop`."""
        may_queue = self._pattern is not None or self._slots < inf
        watch = QueueWatch(self, keep_alive, self._interval if may_queue else None)
        try:
            yield watch
        finally:
            watch.stop()

    async def has_queue(self) -> bool:
        """Return whether requests wait at the server, as of at most one interval ago."""
        if self._pattern is None:
            return self._exceeds_slots()
        async with self._lock:
            if self._clock() >= self._expires:
                self._waiting, pause = await self._fetch()
                # Each time anew: a server may be restarted with another number.
                self._slots = inf if self._waiting else await self._fetch_slots()
                self._expires = self._clock() + pause
            return self._waiting or self._exceeds_slots()

    def _exceeds_slots(self) -> bool:
        activity = self._activity
        if activity is None or activity.running <= self._slots:
            return False
        return self._clock() - activity.last_received < self._interval

    async def _fetch_slots(self) -> float:
        """Return the number of slots that the server declares; infinity if it declares none."""
        if self._slots_at is None:
            return inf
        path, member = self._slots_at
        with suppress(TimeoutError, NodeError, RequestError):
            async with asyncio.timeout(_TIMEOUT):
                props = await self._http.get(path)
            slots = props.get(member) if isinstance(props, dict) else None
            if type(slots) is int and slots > 0:
                return slots
        return inf

    async def _fetch(self) -> tuple[bool, float]:
        """Return whether requests wait according to the metrics, and the seconds until the next fetch."""
        assert self._pattern is not None
        try:
            async with asyncio.timeout(_TIMEOUT):
                text = await self._http.get_text("/metrics")
        except TimeoutError:
            return False, self._interval
        except (NodeError, RequestError):
            return False, _RETRY_INTERVAL
        return any(map(_is_positive, self._pattern.findall(text))), self._interval * 0.9


def _is_positive(value: str) -> bool:
    """Return whether the value of a metric is positive; one that is not a number counts as none."""
    try:
        return float(value) > 0
    except ValueError:
        return False


class QueueWatch:
    """Watch of one request. `interval` in seconds; None: nothing to watch."""

    def __init__(self, watcher: QueueWatcher, keep_alive: Callable[[], None], interval: float | None) -> None:
        self._watcher = watcher
        self._keep_alive = keep_alive
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if interval is not None:
            # A timer costs less than a task, which few requests need.
            self._timer = asyncio.get_running_loop().call_later(interval, self._start, interval)

    def stop(self) -> None:
        """Stop the watch: the first token has arrived, or the request has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _start(self, interval: float) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._run(interval))

    async def _run(self, interval: float) -> None:
        while True:
            if await self._watcher.has_queue():
                self._keep_alive()
            await asyncio.sleep(interval)
