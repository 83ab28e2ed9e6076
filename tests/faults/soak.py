"""Random kills under load: `python -m tests.faults.soak --minutes 10`.

Three echo nodes are killed and restarted at random while 50 streams run. Prints counts; the exit code is 1 if any
answer differed or failed, or anything was left behind.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException

from tests.faults import lab, programs
from tests.faults.answers import Answer
from tests.faults.asking import Question, ask

NODES = (*programs.ECHO, "--echo-rate", "50")
OUTCOMES = ("complete", "identical", "failed")


class Soak:
    """Asks questions and kills nodes until `end`, a time of time.monotonic()."""

    def __init__(self, pool: lab.Pool, end: float, dice: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.kills = 0
        self._pool = pool
        self._end = end
        self._dice = dice
        self._questions = [
            Question(prompt=f"question {n}", seed=n, max_tokens=dice.randint(20, 120)) for n in range(40)
        ]
        with ThreadPoolExecutor(len(self._questions)) as threads:
            answers = threads.map(pool.ask, self._questions)
            self._undisturbed = {
                question.seed: answer.outcome for question, answer in zip(self._questions, answers, strict=True)
            }

    def run(self, streams: int) -> None:
        with ThreadPoolExecutor(streams + 1) as threads:
            done = [threads.submit(self._ask_on) for _ in range(streams)]
            done.append(threads.submit(self._kill_on))
        for each in done:
            each.result()

    def _ask_on(self) -> None:
        while time.monotonic() < self._end:
            question = self._dice.choice(self._questions)
            answer = Answer(status=0, headers={})
            with suppress(OSError, HTTPException):
                answer = ask(self._pool.gateway.url, question)
            same = answer.complete and answer.outcome == self._undisturbed[question.seed]
            self.counts.update(["asked", *self._words(answer, same)])
            if not same:
                print(f"seed {question.seed}: {answer.status} {answer.errors or answer.outcome}", flush=True)

    def _words(self, answer: Answer, same: bool) -> list[str]:
        return ["complete", *(["identical"] if same else [])] if answer.complete else ["failed"]

    def _kill_on(self) -> None:
        while time.monotonic() < self._end:
            time.sleep(self._dice.uniform(0.2, 2.0))
            node = self._dice.choice([node for node in self._pool.nodes if node.alive])
            node.end()
            self.kills += 1
            time.sleep(self._dice.uniform(0.0, 1.0))
            node.start()
            node.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="of the kills and the questions")
    options = parser.parse_args()
    with lab.pool(NODES, NODES, NODES, flags=()) as pool:
        soak = Soak(pool, time.monotonic() + 60 * options.minutes, random.Random(options.seed))
        soak.run(options.streams)
        with suppress(AssertionError):
            pool.heal()
        left = {what: count for what, count in pool.left.items() if count}
    counts = {word: soak.counts[word] for word in ("asked", *OUTCOMES)}
    print(f"{soak.kills} kills; {', '.join(f'{count} {word}' for word, count in counts.items())}; leaked: {left or 0}")
    sys.exit(counts["asked"] != counts["identical"] or bool(left))


if __name__ == "__main__":
    main()
