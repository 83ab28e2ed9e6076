"""An honest stream beside an attack: the answer must be the same and complete, and memory must stay within a bound.

    report = check_beside(attack, gateway, max_growth=64 << 20)
    record_property("gap", report.gap)

`attack` runs in a thread from the third piece of text of the honest answer on. It is given an event, which is set when
that answer has ended; it should go on until then, and return soon after.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event

import msgspec

from tests.faults.answers import Answer
from tests.faults.asking import Question, ask
from tests.faults.programs import Command, Gateway

QUESTION = Question(max_tokens=300)
"""Of a node with PACED, an answer to this takes a second and a half."""

_STARTED = 3

Attack = Callable[[Event], None]


class Report(msgspec.Struct, frozen=True):
    """What the honest stream and the attacked process noticed: the longest time between two pieces of text, in seconds,
    and how far the process's resident memory rose at its peak, in bytes.
    """

    gap: float
    growth: int


class PeakMemory:
    """Highest resident memory of a process since this object was made, over that at its beginning. Linux only."""

    def __init__(self, pid: int) -> None:
        self._process = Path("/proc") / str(pid)
        # 5: the peak starts anew, see proc_pid_clear_refs(5).
        (self._process / "clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    @property
    def growth(self) -> int:
        """Growth in bytes; 0 or more."""
        return max(0, self._read("VmHWM") - self._before)

    def _read(self, name: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def check_beside(
    attack: Attack,
    gateway: Gateway,
    *,
    max_growth: int,
    attacked: Command | None = None,
    question: Question = QUESTION,
    expected: Answer | None = None,
) -> Report:
    """Run `attack` beside an honest answer, and return what was noticed.

    Fails if the answer differs from one without the attack, is incomplete or needed another node, or if the memory of
    `attacked`, by default the gateway, grew by more than `max_growth` bytes. `question` must have a seed;
    `expected` is its answer, if it is known.
    """
    expected = expected or ask(gateway.url, question)
    assert expected.complete, expected.errors
    process = (attacked or gateway).process
    assert process is not None
    memory, started, ended = PeakMemory(process.pid), Event(), Event()

    def begin(pieces: int) -> None:
        if pieces == _STARTED:
            started.set()

    def run_attack() -> None:
        assert started.wait(60), "the honest answer did not begin"
        attack(ended)

    with ThreadPoolExecutor(1) as attacker:
        attacking = attacker.submit(run_attack)
        try:
            answer = ask(gateway.url, question, begin)
        finally:
            started.set()
            ended.set()
        attacking.result()
    report = Report(max(after - before for before, after in pairwise(answer.text_times)), memory.growth)
    assert answer.complete, answer.errors or answer.status
    assert not answer.switched, "the honest node was taken for silent"
    assert answer.outcome == expected.outcome, "the honest answer is another one beside the attack"
    assert report.growth <= max_growth, f"memory grew by {report.growth >> 20} MiB, more than {max_growth >> 20} MiB"
    return report
