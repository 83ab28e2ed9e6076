"""Unit tests of the retry budget, the idle deadline and the token authorizer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from string import ascii_lowercase

import pytest

from subnet import Limits
from subnet.client.deadline import Activity, IdleDeadline
from subnet.client.request_state import RequestState
from subnet.client.retry import Retry
from subnet.errors import AnswerTimeout, EngineFailed, NodeBusy, NodeLost, NoNodeAvailable, RateLimited


def test_retries_are_bounded_and_back_off() -> None:
    """The first retry is immediate, later ones wait up to a doubling maximum, and the last error is raised."""
    limits = Limits(max_attempts=27, max_total_attempts=99, backoff=0.001, backoff_max=1.5)
    retry = Retry(limits, clock=lambda: 0.0)
    first, *pauses = [retry.on_failure(EngineFailed("x"), peer) for peer in ascii_lowercase]
    assert first == 0.0
    assert all(0 <= pause <= min(1.5, 0.002 * 2**number) for number, pause in enumerate(pauses))
    assert max(pauses) > 0.15  # smaller by chance once in 10^15 runs
    with pytest.raises(EngineFailed):
        retry.on_failure(EngineFailed("x"), "last")
    assert retry.excluded == {*ascii_lowercase, "last"}


def test_waiting_for_capacity_ends_after_queue_timeout() -> None:
    """A session waits for capacity up to queue_timeout, without using attempts, and then raises the last failure."""
    now = [0.0]
    retry = Retry(Limits(max_attempts=2, queue_timeout=5.0), clock=lambda: now[0])
    with pytest.raises(NoNodeAvailable):
        retry.on_unavailable(NoNodeAvailable("nobody"))
    assert retry.on_failure(NodeBusy("full"), "a") == 0.0
    assert retry.on_failure(EngineFailed("broke"), "b") == 0.0
    for _ in range(10):
        assert 0 < retry.on_unavailable(NoNodeAvailable("nobody")) < 0.1
    now[0] = 5.1
    with pytest.raises(EngineFailed):
        retry.on_unavailable(NoNodeAvailable("nobody"))
    with pytest.raises(NodeBusy):
        retry.on_unavailable(NodeBusy("full"))


def test_retry_after_longer_than_queue_timeout_fails_at_once() -> None:
    """A rate limit whose Retry-After exceeds queue_timeout is raised without waiting."""
    retry = Retry(Limits(queue_timeout=5.0), clock=lambda: 0.0)
    assert retry.on_unavailable(RateLimited("too often", retry_after=4.0)) > 0
    assert retry.on_unavailable(RateLimited("too often")) > 0
    with pytest.raises(RateLimited):
        retry.on_unavailable(RateLimited("too often", retry_after=6.0))


def test_progress_restores_the_retry_budget() -> None:
    """New tokens restore all attempts and the whole queue_timeout."""
    now = [0.0]
    retry = Retry(Limits(max_attempts=2, queue_timeout=5.0), clock=lambda: now[0])
    for _ in range(5):
        retry.on_failure(EngineFailed("x"), "a")
        assert retry.on_unavailable(NodeBusy("full")) > 0
        now[0] += 4.0
        retry.on_progress()


def test_retry_timeout_counts_from_the_last_token() -> None:
    """A long answer that loses its node is retried: retry_timeout counts from the last token."""
    now = [0.0]
    retry = Retry(Limits(max_attempts=4, retry_timeout=60.0), clock=lambda: now[0])
    now[0] = 300.0
    retry.on_progress()
    assert retry.on_failure(EngineFailed("x"), "a") == 0.0
    now[0] = 400.0
    with pytest.raises(EngineFailed):
        retry.on_failure(EngineFailed("x"), "b")


def test_the_first_failure_is_always_retried() -> None:
    """The first failure is retried even if retry_timeout has already passed, a second one is not."""
    now = [0.0]
    retry = Retry(Limits(max_attempts=4, retry_timeout=60.0), clock=lambda: now[0])
    now[0] = 120.0
    assert retry.on_failure(EngineFailed("x"), "a") == 0.0
    with pytest.raises(EngineFailed):
        retry.on_failure(EngineFailed("x"), "b")


def test_attempts_in_all_are_bounded() -> None:
    """A request ends after max_total_attempts attempts, even if each brings a token."""
    retry = Retry(Limits(max_attempts=4, max_total_attempts=16), clock=lambda: 0.0)
    for _ in range(15):
        retry.on_progress()
        retry.on_failure(EngineFailed("x"), "a")
    retry.on_progress()
    with pytest.raises(EngineFailed):
        retry.on_failure(EngineFailed("x"), "a")


def test_failover_timeout_counts_from_the_first_failure() -> None:
    """The time to the next token is bounded from the first failure on, and without a failure it is not."""
    now = [0.0]
    retry = Retry(Limits(failover_timeout=45.0, retry_timeout=900.0, queue_timeout=900.0), clock=lambda: now[0])
    now[0] = 500.0
    before = retry.remaining
    retry.on_failure(EngineFailed("x"), "a")
    now[0] = 540.0
    assert (before, retry.remaining) == (None, 5.0)
    assert retry.on_unavailable(NodeBusy("full")) > 0
    now[0] = 545.0
    with pytest.raises(NodeBusy):
        retry.on_unavailable(NodeBusy("full"))
    retry.on_progress()
    retry.on_unavailable(NodeBusy("full"))


def test_a_short_retry_after_is_waited_for_before_a_fallback() -> None:
    """While a fallback can be asked, only a wait of at most max_retry_after is waited for."""
    now = [0.0]
    retry = Retry(Limits(max_retry_after=3.0), RequestState(lambda: False), lambda: now[0])
    assert retry.on_unavailable(RateLimited("too often", retry_after=2.0)) > 0
    now[0] = 1.0
    assert retry.on_unavailable(RateLimited("too often", retry_after=1.0)) > 0
    now[0] = 3.5
    with pytest.raises(RateLimited):
        retry.on_unavailable(RateLimited("too often", retry_after=1.0))
    for error in (RateLimited("too often", retry_after=4.0), NodeBusy("full")):
        with pytest.raises(type(error)):
            Retry(Limits(max_retry_after=3.0), RequestState(lambda: False), lambda: 0.0).on_unavailable(error)


async def test_idle_timeout_raises_timeout_error() -> None:
    """An idle timeout raises TimeoutError and leaves the waiting task uncancelled."""
    deadline = IdleDeadline()
    with pytest.raises(TimeoutError):
        await deadline.wait(asyncio.get_running_loop().create_future(), 0.01)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    deadline.close()


async def test_a_shorter_timeout_after_a_longer_one() -> None:
    """A short timeout fires on time although an earlier wait set a longer timer."""
    deadline = IdleDeadline()
    await deadline.wait(asyncio.sleep(0), 60.0)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match=r"^$"):
            await deadline.wait(asyncio.get_running_loop().create_future(), 0.01)
    deadline.close()


async def test_tokens_restart_the_idle_timeout() -> None:
    """Every token restarts the idle timeout, so a wait with regular tokens may take any time."""
    deadline, activity, tokens = IdleDeadline(), Activity(), 0
    loop = asyncio.get_running_loop()
    end = loop.create_future()

    def receive_token() -> None:
        nonlocal tokens
        tokens += 1
        activity.last_token = time.monotonic()
        if tokens < 10:
            loop.call_later(0.1, receive_token)

    receive_token()
    with pytest.raises(TimeoutError):
        await deadline.wait(end, 0.6, activities=[activity])
    assert tokens == 10
    deadline.close()


async def test_keep_alives_extend_the_idle_timeout_up_to_a_maximum() -> None:
    """Keep-alives without tokens extend the idle timeout up to keep_alive_timeout, then the wait times out."""
    deadline, activity, keep_alives = IdleDeadline(), Activity(), 0
    loop = asyncio.get_running_loop()
    end = loop.create_future()

    def receive_keep_alive() -> None:
        nonlocal keep_alives
        keep_alives += 1
        activity.last_keep_alive = time.monotonic()
        if not end.done():
            loop.call_later(0.02, receive_keep_alive)

    receive_keep_alive()
    with pytest.raises(TimeoutError):
        await deadline.wait(end, 0.3, 1.0, [activity])
    assert end.cancelled()
    assert keep_alives > 1
    deadline.close()


async def test_a_blocked_event_loop_is_not_an_idle_node() -> None:
    """A result that arrives while the event loop is blocked does not time out; a node that stays silent does."""
    deadline, loop = IdleDeadline(), asyncio.get_running_loop()
    end = loop.create_future()

    def block(then: Callable[[], object]) -> None:
        time.sleep(0.4)
        loop.call_soon(loop.call_soon, then)

    loop.call_soon(block, lambda: end.set_result(None))
    await deadline.wait(end, 0.1)
    loop.call_soon(block, lambda: None)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match=r"^$"):
            await deadline.wait(loop.create_future(), 0.1)
    deadline.close()


async def test_cancellation_is_not_a_timeout() -> None:
    """Cancelling a waiting task from outside raises CancelledError, not TimeoutError."""
    deadline = IdleDeadline()
    task = asyncio.create_task(deadline.wait(asyncio.Event().wait(), 60.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline.close()


async def test_the_first_abort_error_wins() -> None:
    """A deadline aborted twice raises the first error, in the current wait and in later ones."""
    deadline = IdleDeadline()
    task = asyncio.create_task(deadline.wait(asyncio.Event().wait(), 60.0))
    await asyncio.sleep(0)
    deadline.abort(NodeLost("first"))
    deadline.abort(NodeLost("second"))
    with pytest.raises(NodeLost, match="first"):
        await task
    with pytest.raises(NodeLost, match="first"):
        await deadline.wait(asyncio.sleep(60))
    deadline.close()


async def test_abort_takes_precedence_over_a_timeout() -> None:
    """An abort while a timed-out awaitable is still ending raises the abort error instead of TimeoutError."""
    deadline, cancelled = IdleDeadline(), asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await asyncio.sleep(0.01)

    task = asyncio.create_task(deadline.wait(slow(), 0.01))
    await cancelled.wait()
    deadline.abort(NodeLost("over"))
    with pytest.raises(NodeLost, match="over"):
        await task
    deadline.close()


class OtherClock(asyncio.SelectorEventLoop):
    """Event loop whose clock differs from time.monotonic, as on some loops after the machine slept."""

    def time(self) -> float:
        return super().time() + 3600


def test_the_event_loop_may_have_another_clock() -> None:
    """Idle timeouts are right when loop.time() differs from time.monotonic."""

    async def main() -> None:
        deadline, activity = IdleDeadline(), Activity()
        loop = asyncio.get_running_loop()
        end = loop.create_future()

        def receive_token(times: int) -> None:
            activity.last_token = time.monotonic()
            if times:
                loop.call_later(0.05, receive_token, times - 1)
            else:
                end.set_result(None)

        receive_token(10)
        await deadline.wait(end, 0.3, activities=[activity])
        with pytest.raises(TimeoutError):
            await deadline.wait(loop.create_future(), 0.01, activities=[activity])
        deadline.close()

    with asyncio.Runner(loop_factory=OtherClock) as runner:
        runner.run(main())


async def test_an_early_timer_does_not_prolong_the_grace_period() -> None:
    """The grace period after a blocked event loop is the lag behind the timeout, not behind an early timer."""
    deadline, loop = IdleDeadline(), asyncio.get_running_loop()
    started = loop.time()
    loop.call_soon(time.sleep, 2.0)
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError, match=r"^$"):
            await deadline.wait(loop.create_future(), 1.8, next_timeout=0.01)
    # 0.2 s late for a timeout of 1.8 s: the grace period is another 0.2 s, not 2 s.
    assert loop.time() - started < 3.8
    deadline.close()


@pytest.mark.parametrize("next_timeout", [inf, 0.001], ids=["one timer", "an early timer"])
async def test_an_idle_timeout_beyond_the_end_of_an_answer(next_timeout: float) -> None:
    """However long the idle timeout is, an answer that sends nothing ends when its time is over."""
    deadline = IdleDeadline(time.monotonic(), 0.01)
    async with asyncio.timeout(20):
        with pytest.raises(AnswerTimeout):
            await deadline.wait(asyncio.Event().wait(), 1000.0, next_timeout=next_timeout)
    deadline.close()
