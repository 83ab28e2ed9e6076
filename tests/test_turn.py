"""What is put off to the end of a turn of the event loop."""

from __future__ import annotations

import asyncio

from adapter.server.response_writer import Turn, turn_of


async def test_jobs_run_once_after_what_is_ready() -> None:
    """In order, after everything that was ready with what asked for them, and not again."""
    loop = asyncio.get_running_loop()
    turn, done = Turn(loop), []

    def step(name: str) -> None:
        done.append(name)
        turn.at_end(lambda: done.append(f"end of {name}"))

    loop.call_soon(step, "a")
    loop.call_soon(step, "b")
    for _ in range(4):
        await asyncio.sleep(0)
    assert done == ["a", "b", "end of a", "end of b"]


async def test_a_job_may_ask_for_another_turn() -> None:
    """What a job puts off comes after it."""
    turn, done = Turn(asyncio.get_running_loop()), []
    turn.at_end(lambda: turn.at_end(lambda: done.append("later")))
    for _ in range(4):
        await asyncio.sleep(0)
    assert done == ["later"]


async def test_a_job_that_raises() -> None:
    """It is told to the loop, and the others are done all the same."""
    loop = asyncio.get_running_loop()
    said: list[object] = []
    loop.set_exception_handler(lambda _, context: said.append(context["exception"]))
    turn, done, error = Turn(loop), [], OSError("x")

    def fail() -> None:
        raise error

    turn.at_end(fail)
    turn.at_end(lambda: done.append("b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (said, done) == ([error], ["b"])


async def test_one_for_each_loop() -> None:
    """All connections of a loop share one."""
    assert turn_of(asyncio.get_running_loop()) is turn_of(asyncio.get_running_loop())
