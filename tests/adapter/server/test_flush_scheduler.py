"""Calls deferred to the end of an event loop iteration."""

from __future__ import annotations

import asyncio

from adapter.server.response_writer import FlushScheduler, flush_scheduler


async def test_callbacks_run_once_after_all_that_is_ready() -> None:
    """Callbacks run once, in order, after everything that was ready when they were scheduled."""
    loop = asyncio.get_running_loop()
    scheduler, done = FlushScheduler(loop), []

    def step(name: str) -> None:
        done.append(name)
        scheduler.schedule(lambda: done.append(f"end of {name}"))

    loop.call_soon(step, "a")
    loop.call_soon(step, "b")
    for _ in range(4):
        await asyncio.sleep(0)
    assert done == ["a", "b", "end of a", "end of b"]


async def test_a_callback_schedules_another() -> None:
    """A callback that a callback schedules runs in the next iteration."""
    scheduler, done = FlushScheduler(asyncio.get_running_loop()), []
    scheduler.schedule(lambda: scheduler.schedule(lambda: done.append("later")))
    for _ in range(4):
        await asyncio.sleep(0)
    assert done == ["later"]


async def test_a_callback_that_raises() -> None:
    """An error goes to the loop's exception handler, and the other callbacks still run."""
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    scheduler, done, error = FlushScheduler(loop), [], OSError("x")

    def fail() -> None:
        raise error

    scheduler.schedule(fail)
    scheduler.schedule(lambda: done.append("b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (errors, done) == ([error], ["b"])


async def test_one_for_each_loop() -> None:
    """All connections of a loop share one scheduler."""
    assert flush_scheduler(asyncio.get_running_loop()) is flush_scheduler(asyncio.get_running_loop())
