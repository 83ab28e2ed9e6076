"""What a gateway counts, in memory. The counts of several processes can be added up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from adapter.decode.usage import Usage
from adapter.generation.base import TriedNodes, Work

BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Upper bounds of the buckets of durations, in seconds; a last bucket has no bound."""


class ModelCounts(msgspec.Struct):
    """Counts of one model, see Metrics. `durations` has the number of requests for each bucket, and `seconds` the sum
    of their durations.
    """

    answers: int = 0
    switches: int = 0
    diverged: int = 0
    prompt: int = 0
    completion: int = 0
    replayed: int = 0
    seconds: float = 0.0
    durations: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def record(self, seconds: float, tried: Sequence[TriedNodes], usage: Usage) -> None:
        self.answers += len(tried)
        if switches := sum(len(answer.nodes) - 1 for answer in tried):
            self.switches += switches
            self.replayed += sum(answer.replayed_tokens for answer in tried)
            self.diverged += sum(answer.diverged for answer in tried)
        self.prompt += usage.prompt_tokens
        self.completion += usage.completion_tokens
        self.seconds += seconds
        self.durations[bisect_left(BOUNDS, seconds)] += 1

    def add(self, other: ModelCounts) -> None:
        for name in ("answers", "switches", "diverged", "prompt", "completion", "replayed", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.durations = [own + more for own, more in zip(self.durations, other.durations, strict=True)]


class Counts(msgspec.Struct):
    """Finished requests by endpoint and status, and counts by model."""

    requests: dict[tuple[str, int], int] = {}
    models: dict[str, ModelCounts] = {}

    def record(self, endpoint: str, status: int, seconds: float, works: Iterable[Work]) -> None:
        """Count a finished request to `endpoint`, which took `seconds`, and the work done for it."""
        key = (endpoint, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        for work in works:
            if tried := work.tried_nodes:
                self._model(work.card.id).record(seconds, tried, work.usage)

    def add(self, other: Counts) -> None:
        """Add the counts of another process, or of another time."""
        for key, count in other.requests.items():
            self.requests[key] = self.requests.get(key, 0) + count
        for name, counts in other.models.items():
            self._model(name).add(counts)

    def _model(self, name: str) -> ModelCounts:
        found = self.models.get(name)
        if found is None:
            found = self.models[name] = ModelCounts()
        return found


class CountStore(Protocol):
    """Where a gateway process counts."""

    def current(self) -> Counts:
        """Return the counts to record a request in now; not to be kept."""
        ...

    async def total(self) -> Counts:
        """Return the counts of all processes of the gateway since its start. Raises TimeoutError."""
        ...


class LocalCounts:
    """Counts of a gateway that has one process."""

    def __init__(self) -> None:
        self._counts = Counts()

    def current(self) -> Counts:
        return self._counts

    async def total(self) -> Counts:
        return self._counts
