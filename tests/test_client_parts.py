"""The parts that decide: retry, watchdog, authorizer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from string import ascii_lowercase

import msgspec
import pytest

from subnet import Limits, TokenAuthorizer
from subnet.client.deadline import Pulse, Watchdog
from subnet.client.retry import Retry
from subnet.errors import EngineFailed, NodeBusy, NodeLost, NoNodeAvailable, RateLimited, Unauthorized
from subnet.generation import Sampling
from subnet.wire.messages import Accepted, ChoiceStart, Generate
from subnet.wire.tensors import pack, token_ids


def test_retries_are_bounded_and_back_off() -> None:
    """The first is at once, later ones within a doubling bound, and the last error is raised."""
    retry = Retry(Limits(max_attempts=27, backoff=0.001, backoff_max=1.5, retry_timeout=60.0), lambda: 0.0)
    first, *pauses = [retry.failed(EngineFailed("x"), peer) for peer in ascii_lowercase]
    assert first == 0.0
    assert all(0 <= pause <= min(1.5, 0.002 * 2**number) for number, pause in enumerate(pauses))
    assert max(pauses) > 0.15  # by chance it is less once in 10 to the 15
    with pytest.raises(EngineFailed):
        retry.failed(EngineFailed("x"), "last")
    assert retry.excluded == {*ascii_lowercase, "last"}


def test_waiting_is_bounded_and_no_attempt() -> None:
    """For room, or for a node to come back, a session waits as long as its patience; the cause is what is raised."""
    now = [0.0]
    retry = Retry(Limits(max_attempts=2, queue_timeout=5.0), lambda: now[0])
    with pytest.raises(NoNodeAvailable):
        retry.waited(NoNodeAvailable("nobody"))
    assert retry.failed(NodeBusy("full"), "a") == 0.0
    assert retry.failed(EngineFailed("broke"), "b") == 0.0
    for _ in range(10):
        assert 0 < retry.waited(NoNodeAvailable("nobody")) < 0.1
    now[0] = 5.1
    with pytest.raises(EngineFailed):
        retry.waited(NoNodeAvailable("nobody"))
    with pytest.raises(NodeBusy):
        retry.waited(NodeBusy("full"))


def test_who_is_asked_too_often_says_when() -> None:
    """What is longer than the patience is not waited for at all."""
    retry = Retry(Limits(queue_timeout=5.0), lambda: 0.0)
    assert retry.waited(RateLimited("too often", retry_after=4.0)) > 0
    assert retry.waited(RateLimited("too often")) > 0
    with pytest.raises(RateLimited):
        retry.waited(RateLimited("too often", retry_after=6.0))


def test_progress_renews_the_attempts() -> None:
    """An answer may outlive more nodes than there are attempts, and wait for each as long as for the first."""
    now = [0.0]
    retry = Retry(Limits(max_attempts=2, queue_timeout=5.0), lambda: now[0])
    for _ in range(5):
        retry.failed(EngineFailed("x"), "a")
        assert retry.waited(NodeBusy("full")) > 0
        now[0] += 4.0
        retry.progressed()


def test_a_long_answer_may_lose_its_node() -> None:
    """The bound on trying counts from the last token, not from the question."""
    now = [0.0]
    retry = Retry(Limits(max_attempts=4, retry_timeout=60.0), lambda: now[0])
    now[0] = 300.0
    retry.progressed()
    assert retry.failed(EngineFailed("x"), "a") == 0.0
    now[0] = 400.0
    with pytest.raises(EngineFailed):
        retry.failed(EngineFailed("x"), "b")


def test_a_failure_that_was_noticed_late_is_retried() -> None:
    """Waiting for a first token may have taken all the time there is: another node has not been tried yet."""
    now = [0.0]
    retry = Retry(Limits(max_attempts=4, retry_timeout=60.0), lambda: now[0])
    now[0] = 120.0
    assert retry.failed(EngineFailed("x"), "a") == 0.0
    with pytest.raises(EngineFailed):
        retry.failed(EngineFailed("x"), "b")


async def test_a_watchdog_bites() -> None:
    """Waiting too long raises TimeoutError, and the task goes on uncancelled."""
    watchdog = Watchdog()
    with pytest.raises(TimeoutError):
        await watchdog.wait(asyncio.get_running_loop().create_future(), 0.01)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    watchdog.close()


async def test_a_shorter_wait_after_a_longer_one() -> None:
    """The timer of an earlier, longer wait does not hide a shorter one."""
    watchdog = Watchdog()
    await watchdog.wait(asyncio.sleep(0), 60.0)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match=r"^$"):
            await watchdog.wait(asyncio.get_running_loop().create_future(), 0.01)
    watchdog.close()


async def test_a_watchdog_hears() -> None:
    """As long as there are signs of life, a wait may take any time; silence is counted from the last one."""
    watchdog, pulse, heard = Watchdog(), Pulse(), 0
    loop = asyncio.get_running_loop()
    end = loop.create_future()

    def hear() -> None:
        nonlocal heard
        heard += 1
        pulse.heard = time.monotonic()
        if heard < 10:
            loop.call_later(0.1, hear)

    hear()
    with pytest.raises(TimeoutError):
        await watchdog.wait(end, 0.6, pulses=[pulse])
    assert heard == 10
    watchdog.close()


async def test_signs_of_life_are_not_believed_for_ever() -> None:
    """Who is alive and has nothing to say is waited for longer, but not without end."""
    watchdog, pulse, alive = Watchdog(), Pulse(), 0
    loop = asyncio.get_running_loop()
    end = loop.create_future()

    def live() -> None:
        nonlocal alive
        alive += 1
        pulse.alive = time.monotonic()
        if not end.done():
            loop.call_later(0.02, live)

    live()
    with pytest.raises(TimeoutError):
        await watchdog.wait(end, 0.3, 1.0, [pulse])
    assert end.cancelled()
    assert alive > 1
    watchdog.close()


async def test_a_process_that_was_held_up() -> None:
    """What came while this process had no time to read it is no silence of the node; real silence still is."""
    watchdog, loop = Watchdog(), asyncio.get_running_loop()
    end = loop.create_future()

    def hold_up(then: Callable[[], object]) -> None:
        time.sleep(0.4)
        loop.call_soon(loop.call_soon, then)

    loop.call_soon(hold_up, lambda: end.set_result(None))
    await watchdog.wait(end, 0.1)
    loop.call_soon(hold_up, lambda: None)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match=r"^$"):
            await watchdog.wait(loop.create_future(), 0.1)
    watchdog.close()


async def test_cancellation_is_not_a_timeout() -> None:
    """A task that is cancelled from outside stays cancelled."""
    watchdog = Watchdog()
    task = asyncio.create_task(watchdog.wait(asyncio.Event().wait(), 60.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watchdog.close()


async def test_ended_twice() -> None:
    """The first reason counts, also for who would wait after that."""
    watchdog = Watchdog()
    task = asyncio.create_task(watchdog.wait(asyncio.Event().wait(), 60.0))
    await asyncio.sleep(0)
    watchdog.end(NodeLost("first"))
    watchdog.end(NodeLost("second"))
    with pytest.raises(NodeLost, match="first"):
        await task
    with pytest.raises(NodeLost, match="first"):
        await watchdog.wait(asyncio.sleep(60))
    watchdog.close()


async def test_ended_while_it_bites() -> None:
    """Who is given up and takes long to end hears the last word, not that of the silence before it."""
    watchdog, given_up = Watchdog(), asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
            await asyncio.sleep(0.01)

    task = asyncio.create_task(watchdog.wait(slow(), 0.01))
    await given_up.wait()
    watchdog.end(NodeLost("over"))
    with pytest.raises(NodeLost, match="over"):
        await task
    watchdog.close()


class OtherClock(asyncio.SelectorEventLoop):
    """Counts from elsewhere, as some loops do where a machine slept."""

    def time(self) -> float:
        return super().time() + 3600


def test_the_clock_of_a_loop() -> None:
    """It is not that of the pulses, and need not be."""

    async def main() -> None:
        watchdog, pulse = Watchdog(), Pulse()
        loop = asyncio.get_running_loop()
        end = loop.create_future()

        def hear(times: int) -> None:
            pulse.heard = time.monotonic()
            if times:
                loop.call_later(0.05, hear, times - 1)
            else:
                end.set_result(None)

        hear(10)
        await watchdog.wait(end, 0.3, pulses=[pulse])
        with pytest.raises(TimeoutError):
            await watchdog.wait(loop.create_future(), 0.01, pulses=[pulse])
        watchdog.close()

    with asyncio.Runner(loop_factory=OtherClock) as runner:
        runner.run(main())


async def test_lateness_is_what_came_after_the_silence() -> None:
    """A timer that is set for less, early, does not make silence last longer when the process was held up."""
    watchdog, loop = Watchdog(), asyncio.get_running_loop()
    begin = loop.time()
    loop.call_soon(time.sleep, 2.0)
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError, match=r"^$"):
            await watchdog.wait(loop.create_future(), 1.8, then=0.01)
    # A fifth of a second late for a silence of 1.8: as much once more, not two seconds.
    assert loop.time() - begin < 3.8
    watchdog.close()


def request() -> Generate:
    start = ChoiceStart(0, pack(token_ids([])))
    return Generate(model="m", prompt=pack(token_ids([1])), sampling=Sampling(temperature=0), starts=(start,))


async def test_signed_requests() -> None:
    """What was signed is accepted once; changed, replayed, stale or unsigned it is not."""
    now = [1000.0]
    sender, receiver = TokenAuthorizer("s", clock=lambda: now[0]), TokenAuthorizer("s", clock=lambda: now[0])
    signed = await sender.sign_request(request())
    await receiver.validate_request(msgspec.structs.replace(signed, call=17))
    changed = msgspec.structs.replace(await sender.sign_request(request()), model="other")
    for bad in (signed, changed, request()):
        with pytest.raises(Unauthorized):
            await receiver.validate_request(bad)
    late = await sender.sign_request(request())
    now[0] += 3600
    with pytest.raises(Unauthorized, match="clocks"):
        await receiver.validate_request(late)


async def test_signed_responses_belong_to_their_request() -> None:
    """The answer to one request does not pass as the answer to another."""
    authorizer = TokenAuthorizer("s")
    one, two = await authorizer.sign_request(request()), await authorizer.sign_request(request())
    accepted = await authorizer.sign_response(Accepted(1), one)
    await authorizer.validate_response(accepted, one)
    with pytest.raises(Unauthorized):
        await authorizer.validate_response(accepted, two)
