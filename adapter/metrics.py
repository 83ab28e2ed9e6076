"""What the gateway counts, in Prometheus' text form. Counted when a request ends: nothing on the way of a token.

Of several processes behind one address, prometheus_client keeps the counts in files, in the directory that their parent
names in PROMETHEUS_MULTIPROC_DIR before they import it; what one of them shows is the sum, of those that died, too.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from adapter.decode.usage import Usage
from adapter.generation.base import Work
from subnet import RemoteManager

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class _OfModel(msgspec.Struct, frozen=True):
    answers: Counter
    switches: Counter
    prompt: Counter
    completion: Counter
    seconds: Histogram

    def ended(self, seconds: float, answers: int, switches: int, usage: Usage) -> None:
        self.answers.inc(answers)
        if switches:
            self.switches.inc(switches)
        self.prompt.inc(usage.prompt_tokens)
        self.completion.inc(usage.completion_tokens)
        self.seconds.observe(seconds)


class Metrics:
    """Of one gateway; `remotes` is its table of nodes, looked at when metrics are asked for."""

    def __init__(self, remotes: RemoteManager) -> None:
        self.registry = CollectorRegistry()
        self._shown = _sums() if "PROMETHEUS_MULTIPROC_DIR" in os.environ else self.registry
        self._shown.register(_Nodes(remotes))
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
        self._tokens = Counter(
            "adapter_tokens", "Prompt and completion tokens, by model", ["model", "kind"], registry=self.registry
        )
        self._seconds = Histogram(
            "adapter_answer_seconds",
            "Request duration in seconds, by model",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        # A label costs more to look up than to count.
        self._of_status = lru_cache(self._status)
        self._of_model = lru_cache(self._model)

    def ended(self, endpoint: str, status: int, seconds: float, works: Iterable[Work]) -> None:
        """Counts a request to `endpoint` that took `seconds`."""
        self._of_status(endpoint, status).inc()
        for work in works:
            if asked := work.asked:
                attempts = sum(len(one.nodes) - 1 for one in asked)
                self._of_model(work.card.id).ended(seconds, len(asked), attempts, work.usage)

    def text(self) -> bytes:
        """Everything, as of now."""
        return generate_latest(self._shown)

    def _status(self, endpoint: str, status: int) -> Counter:
        return self._requests.labels(endpoint, str(status))

    def _model(self, name: str) -> _OfModel:
        return _OfModel(
            self._answers.labels(name),
            self._switches.labels(name),
            self._tokens.labels(name, "prompt"),
            self._tokens.labels(name, "completion"),
            self._seconds.labels(name),
        )


class _Nodes(Collector):
    """The table of nodes as this process has it."""

    def __init__(self, remotes: RemoteManager) -> None:
        self._remotes = remotes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("adapter_nodes", "Nodes, by state", labels=["state"])
        states = collections.Counter(str(self._remotes.status(remote).state) for remote in self._remotes.remotes)
        for state, count in states.items():
            family.add_metric([state], count)
        yield family


def _sums() -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
