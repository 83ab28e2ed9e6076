"""Metrics of the gateway, in Prometheus' text format. They are updated when a request ends, never for each token."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from adapter.counts import BOUNDS, Counts, CountStore, LocalCounts, ModelCounts
from adapter.generation.base import Work
from subnet import RemoteManager

_LABELS = [*map(floatToGoString, BOUNDS), "+Inf"]


class Metrics:
    """Metrics of one gateway. `remotes` is its node table, which is read when metrics are requested; requests are
    counted in `counts`.
    """

    def __init__(self, remotes: RemoteManager, counts: CountStore | None = None) -> None:
        self._remotes = remotes
        self._counts = counts or LocalCounts()

    def record_request(self, endpoint: str, status: int, seconds: float, works: Iterable[Work]) -> None:
        """Count a finished request to `endpoint`, which took `seconds`, and the work done for it."""
        self._counts.current().record(endpoint, status, seconds, works)

    async def to_text(self) -> bytes:
        """Return all metrics in Prometheus' text format. Raises TimeoutError if another process does not respond."""
        return generate_latest(_Families(families(await self._counts.total(), self._remotes)))


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def families(counts: Counts, remotes: RemoteManager) -> Iterator[Metric]:
    """Yield all metrics: the counts, and the number of nodes by state in the node table of this process."""
    requests = CounterMetricFamily(
        "adapter_requests", "Finished HTTP requests, by endpoint and status code", labels=["endpoint", "status"]
    )
    for (endpoint, status), count in counts.requests.items():
        requests.add_metric([endpoint, str(status)], count)
    yield requests
    yield _counter("answers", "Answers of nodes, embeddings included, by model", counts)
    yield _counter("switches", "Attempts after the first, by model", counts)
    name, text = "adapter_diverged_answers", "Answers whose beginning a node did not repeat, by model"
    yield _counter("diverged", text, counts, name)
    yield _tokens(counts)
    yield _durations(counts)
    yield _nodes(remotes)


def _counter(field: str, text: str, counts: Counts, name: str = "") -> CounterMetricFamily:
    family = CounterMetricFamily(name or f"adapter_{field}", text, labels=["model"])
    for model, one in counts.models.items():
        family.add_metric([model], getattr(one, field))
    return family


def _tokens(counts: Counts) -> CounterMetricFamily:
    text = "Prompt and completion tokens, and those replayed after a failure, by model"
    family = CounterMetricFamily("adapter_tokens", text, labels=["model", "kind"])
    for model, one in counts.models.items():
        for kind in ("prompt", "completion", "replayed"):
            family.add_metric([model, kind], getattr(one, kind))
    return family


def _durations(counts: Counts) -> HistogramMetricFamily:
    text = "Request duration in seconds, by model"
    family = HistogramMetricFamily("adapter_answer_seconds", text, labels=["model"])
    for model, one in counts.models.items():
        family.add_metric([model], _buckets(one), one.seconds)
    return family


def _buckets(counts: ModelCounts) -> list[tuple[str, float]]:
    """Return the number of requests up to each bound."""
    sums: list[tuple[str, float]] = []
    total = 0
    for label, count in zip(_LABELS, counts.durations, strict=True):
        total += count
        sums.append((label, total))
    return sums


def _nodes(remotes: RemoteManager) -> GaugeMetricFamily:
    family = GaugeMetricFamily("adapter_nodes", "Nodes, by state", labels=["state"])
    states = collections.Counter(str(remotes.status(remote).state) for remote in remotes.remotes)
    for state, count in states.items():
        family.add_metric([state], count)
    return family
