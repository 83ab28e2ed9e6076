"""Metrics of the gateway, in Prometheus' text format. They are updated when a request ends, never for each token.

If there are several worker processes, prometheus_client keeps the values in files, in the directory that the parent
process sets as PROMETHEUS_MULTIPROC_DIR before they import it. Each worker then reports the sum of all, including those
that have exited.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from adapter.decode.usage import Usage
from adapter.generation.base import TriedNodes, Work
from subnet import RemoteManager

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class _ModelMetrics(msgspec.Struct, frozen=True):
    """Metrics of one model, with their labels already resolved."""

    answers: Counter
    switches: Counter
    diverged: Counter
    prompt: Counter
    completion: Counter
    replayed: Counter
    seconds: Histogram

    def record(self, seconds: float, tried: Sequence[TriedNodes], usage: Usage) -> None:
        self.answers.inc(len(tried))
        if switches := sum(len(answer.nodes) - 1 for answer in tried):
            self.switches.inc(switches)
            self.replayed.inc(sum(answer.replayed_tokens for answer in tried))
            self.diverged.inc(sum(answer.diverged for answer in tried))
        self.prompt.inc(usage.prompt_tokens)
        self.completion.inc(usage.completion_tokens)
        self.seconds.observe(seconds)


class Metrics:
    """Metrics of one gateway. `remotes` is its node table, which is read when metrics are requested."""

    def __init__(self, remotes: RemoteManager) -> None:
        self.registry = CollectorRegistry()
        self._exported = _create_multiprocess_registry() if "PROMETHEUS_MULTIPROC_DIR" in os.environ else self.registry
        self._exported.register(_NodeCollector(remotes))
        self._requests = Counter(
            "adapter_requests",
            "Finished HTTP requests, by endpoint and status code",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self._answers = Counter(
            "adapter_answers", "Answers of nodes, embeddings included, by model", ["model"], registry=self.registry
        )
        self._switches = Counter(
            "adapter_switches", "Attempts after the first, by model", ["model"], registry=self.registry
        )
        self._diverged = Counter(
            "adapter_diverged_answers",
            "Answers whose beginning a node did not repeat, by model",
            ["model"],
            registry=self.registry,
        )
        self._tokens = Counter(
            "adapter_tokens",
            "Prompt and completion tokens, and those replayed after a failure, by model",
            ["model", "kind"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "adapter_answer_seconds",
            "Request duration in seconds, by model",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        # Looking up a label costs more than counting.
        self._request_counter = lru_cache(self._create_request_counter)
        self._model_metrics = lru_cache(self._create_model_metrics)

    def record_request(self, endpoint: str, status: int, seconds: float, works: Iterable[Work]) -> None:
        """Count a finished request to `endpoint`, which took `seconds`, and the work done for it."""
        self._request_counter(endpoint, status).inc()
        for work in works:
            if tried := work.tried_nodes:
                self._model_metrics(work.card.id).record(seconds, tried, work.usage)

    def to_text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._exported)

    def _create_request_counter(self, endpoint: str, status: int) -> Counter:
        return self._requests.labels(endpoint, str(status))

    def _create_model_metrics(self, name: str) -> _ModelMetrics:
        return _ModelMetrics(
            self._answers.labels(name),
            self._switches.labels(name),
            self._diverged.labels(name),
            self._tokens.labels(name, "prompt"),
            self._tokens.labels(name, "completion"),
            self._tokens.labels(name, "replayed"),
            self._seconds.labels(name),
        )


class _NodeCollector(Collector):
    """Collector of the number of nodes by state, from the node table of this process."""

    def __init__(self, remotes: RemoteManager) -> None:
        self._remotes = remotes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("adapter_nodes", "Nodes, by state", labels=["state"])
        states = collections.Counter(str(self._remotes.status(remote).state) for remote in self._remotes.remotes)
        for state, count in states.items():
            family.add_metric([state], count)
        yield family


def _create_multiprocess_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
