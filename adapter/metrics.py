"""What the gateway counts, in Prometheus' text form. Counted when a request ends: nothing on the way of a token."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from adapter.completion import Completion
from subnet.client import RemoteManager

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Of one gateway; `remotes` is its table of nodes, looked at when metrics are asked for."""

    def __init__(self, remotes: RemoteManager) -> None:
        self.registry = CollectorRegistry()
        self._remotes = remotes
        self._requests = Counter("adapter_requests", "Requests that ended", ["status"], registry=self.registry)
        self._answers = Counter("adapter_answers", "Answers asked of nodes", ["model"], registry=self.registry)
        self._switches = Counter(
            "adapter_switches", "Times another node was asked for an answer", ["model"], registry=self.registry
        )
        self._tokens = Counter("adapter_tokens", "Tokens", ["model", "kind"], registry=self.registry)
        self._seconds = Histogram(
            "adapter_answer_seconds", "From request to end", ["model"], buckets=_SECONDS, registry=self.registry
        )
        self._nodes = Gauge("adapter_nodes", "Nodes, by how they are", ["state"], registry=self.registry)

    def ended(self, status: int, started: float, completion: Completion | None) -> None:
        """A request ended that had begun at `started` (of perf_counter)."""
        self._requests.labels(str(status)).inc()
        if completion is None or completion.ledger is None:
            return
        model, usage = completion.model.card.id, completion.usage
        self._answers.labels(model).inc()
        self._switches.labels(model).inc(len(completion.ledger.nodes) - 1)
        self._tokens.labels(model, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(model, "completion").inc(usage.completion_tokens)
        self._seconds.labels(model).observe(perf_counter() - started)

    def text(self) -> bytes:
        """Everything, as of now."""
        self._nodes.clear()
        for remote in self._remotes.remotes:
            self._nodes.labels(self._remotes.status(remote).state).inc()
        return generate_latest(self.registry)
