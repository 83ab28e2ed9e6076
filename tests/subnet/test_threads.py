"""Threads for work that blocks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from subnet import threads
from subnet.threads import Threads


async def test_results_and_errors() -> None:
    """The result of the work is returned, its error is raised."""
    pool = Threads(2, "test")
    assert await pool.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 7, 0)


async def test_work_that_hangs() -> None:
    """Work that hangs takes one thread of its own pool: another is started for the rest, and other pools are free."""
    pool, other, stuck = Threads(2, "test"), Threads(1, "other"), threading.Event()
    hanging = pool.submit(stuck.wait)
    try:
        names = {(await pool.run(threading.current_thread)).name for _ in range(20)}
        assert len(names) == 1
        assert (await other.run(threading.current_thread)).name == "other-1"
    finally:
        stuck.set()
    assert await asyncio.wrap_future(hanging)


async def test_the_number_of_threads_is_limited() -> None:
    """More work than threads waits; all of it is done."""
    pool, entered, leave = Threads(3, "test"), threading.Semaphore(0), threading.Event()

    def work(number: int) -> int:
        entered.release()
        leave.wait()
        return number

    tasks = [asyncio.create_task(pool.run(work, number)) for number in range(10)]
    for _ in range(3):
        assert await asyncio.to_thread(entered.acquire, timeout=10)
    assert not entered.acquire(blocking=False)
    leave.set()
    assert await asyncio.gather(*tasks) == list(range(10))


async def test_cancelled_work() -> None:
    """Work that was cancelled before it began is not done, and the thread goes on with the next."""
    pool, leave, done = Threads(1, "test"), threading.Event(), list[int]()
    first = pool.submit(leave.wait)
    cancelled: Future[None] = pool.submit(lambda: done.append(1))
    assert cancelled.cancel()
    last = pool.submit(lambda: done.append(2))
    leave.set()
    await asyncio.wrap_future(last)
    assert first.result()
    assert done == [2]


async def test_closing() -> None:
    """Closing ends the threads after the work that they do, and cancels the rest."""
    pool, entered, leave = Threads(1, "test-closing"), threading.Event(), threading.Event()

    def work() -> bool:
        entered.set()
        return leave.wait()

    first, second = pool.submit(work), pool.submit(leave.wait)
    assert await asyncio.to_thread(entered.wait, 10)
    pool.close()
    leave.set()
    assert await asyncio.wrap_future(first)
    assert second.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(leave.wait)
    for thread in threading.enumerate():
        if thread.name.startswith("test-closing"):
            await asyncio.to_thread(thread.join)


_PROGRAM = """\
import asyncio, sys, threading
from subnet import threads

async def main():
    entered = threading.Event()
    def hang():
        entered.set()
        threading.Event().wait()
    started = threads.start("alone", hang) if sys.argv[1] == "alone" else threads.Threads(1, "pool").submit(hang)
    entered.wait()
    print("printed", end="")

asyncio.run(main())
threads.exit_if_busy()
print(" never reached")
"""


@pytest.mark.parametrize("kind", ["alone", "pool"])
def test_the_exit_does_not_wait(kind: str) -> None:
    """A process exits, with its output written, though a thread hangs."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, kind], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("printed", "")


async def test_nothing_to_wait_for() -> None:
    """Without running work, exit_if_busy returns."""
    assert await asyncio.wrap_future(threads.start("test", lambda: 5)) == 5
    threads.exit_if_busy()


_LIMITED = """\
import asyncio, resource, threading
from subnet.http.lookup import Names
from subnet.threads import Threads

async def main():
    # A stack that is larger than the memory that the process may have: no thread can be started from now on.
    pool, other = Threads(4, "pool"), Threads(4, "other")
    print(await pool.run(lambda: 1))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
    threading.stack_size(1 << 34)
    print(await asyncio.gather(*(pool.run(lambda: 2) for _ in range(3))))
    for work in (other.run(lambda: 3), Names().addresses("node.test", 80)):
        try:
            await work
        except Exception as error:
            print(type(error).__name__)

asyncio.run(main())
"""


def test_no_more_threads() -> None:
    """The threads that there are do all work; without any, it is an error, and for a look-up that of a node."""
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n") == ["1", "[2, 2, 2]", "RuntimeError", "BlockingIOError", ""]
