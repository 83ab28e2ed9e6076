"""Counts of requests, in one process and added up over several."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from adapter.counts import Counts, CountStore, ModelCounts
from adapter.decode.usage import NO_USAGE
from adapter.metrics import Metrics
from adapter.process.count_channel import Total, WorkerCounts
from subnet import RemoteManager

_NUMBERS = st.integers(0, 1000)
_MODELS = st.builds(
    ModelCounts,
    *[_NUMBERS] * 6,
    seconds=_NUMBERS.map(float),
    durations=st.lists(_NUMBERS, min_size=14, max_size=14),
)
_COUNTS = st.builds(
    Counts,
    requests=st.dictionaries(st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from([200, 503])), _NUMBERS),
    models=st.dictionaries(st.sampled_from(["one", "two", 'quoted "name"\n']), _MODELS),
)


class _Fixed:
    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def current(self) -> Counts:
        return self._counts

    async def total(self) -> Counts:
        return self._counts


async def samples(store: CountStore) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the value of each sample in the text of the metrics."""
    text = (await Metrics(RemoteManager([]), store).to_text()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(st.lists(_COUNTS, max_size=4))
def test_the_text_of_sums(several: list[Counts]) -> None:
    """What is added up over processes is the sum of every sample that each would show."""
    total = Counts()
    for one in several:
        total.add(one)
    expected: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for one in several:
        for key, value in asyncio.run(samples(_Fixed(one))).items():
            expected[key] = expected.get(key, 0.0) + value
    assert asyncio.run(samples(_Fixed(total))) == expected


async def test_buckets() -> None:
    """A duration counts in each bucket whose bound it does not exceed."""
    counts = ModelCounts()
    for seconds in (0.05, 0.051, 600.0, 601.0):
        counts.record(seconds, [], NO_USAGE)
    found = await samples(_Fixed(Counts(models={"m": counts})))
    buckets = {dict(labels)["le"]: value for (name, labels), value in found.items() if name.endswith("_bucket")}
    assert buckets["0.05"] == 1
    assert buckets["0.1"] == 2
    assert buckets["300.0"] == 2
    assert buckets["600.0"] == 3
    assert buckets["+Inf"] == 4


@asynccontextmanager
async def worker(total: Total) -> AsyncIterator[WorkerCounts]:
    """Run the counts of a worker, and their receiver, until both are done with what was counted."""
    near, far = socket.socketpair()
    receiving = asyncio.create_task(total.receive(near))
    async with WorkerCounts(far) as counts:
        yield counts
    await receiving


async def test_workers_see_the_sum_of_all() -> None:
    """Each of two workers sees what both have counted, and what one that has ended had counted, at once."""
    total = Total()
    async with worker(total) as ended:
        ended.current().record("/ended", 200, 0.1, [])
    async with worker(total) as first, worker(total) as second:
        for _ in range(3):
            first.current().record("/first", 200, 0.1, [])
        assert (await first.total()).requests == {("/ended", 200): 1, ("/first", 200): 3}
        second.current().record("/first", 200, 0.1, [])
        sums = await asyncio.gather(second.total(), second.total())
        assert [one.requests for one in sums] == [{("/ended", 200): 1, ("/first", 200): 4}] * 2


async def test_what_is_counted_is_sent_without_being_asked_for() -> None:
    """A worker that is killed has sent its counts soon after each request."""
    total = Total()
    async with worker(total) as counting, worker(total) as other:
        counting.current().record("/a", 200, 0.1, [])
        async with asyncio.timeout(30):
            while not (await other.total()).requests:
                await asyncio.sleep(0.01)


async def test_a_parent_that_does_not_read() -> None:
    """Counts are kept in memory that does not grow, and none is lost, while the parent does not read."""
    near, far = socket.socketpair()
    total = Total()
    async with WorkerCounts(far) as counts:
        for number in range(50_000):
            counts.current().record("/a", 200 + number % 2, 0.1, [])
            if number % 10 == 0:
                counts.flush()
        assert counts.unsent < 1 << 18
        receiving = asyncio.create_task(total.receive(near))
        assert (await counts.total()).requests == {("/a", 200): 25_000, ("/a", 201): 25_000}
    await receiving


async def test_a_parent_that_does_not_answer() -> None:
    """The sum is a timeout if the parent does not answer; counting goes on."""
    near, far = socket.socketpair()
    with near:
        async with WorkerCounts(far, timeout=0.05) as counts:
            with pytest.raises(TimeoutError):
                await counts.total()
            counts.current().record("/a", 200, 0.1, [])
