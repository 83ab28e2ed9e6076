"""Measures the delay that a client sees when the node that serves it is killed: `python -m tests.faults.gap --kills
50`.

Each answer is paced. The gap is the longest time between two pieces of text from the kill on, less the usual time at
the same place in undisturbed runs. There is no proxy in between.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from tests.faults import programs
from tests.faults.answers import Answer
from tests.faults.asking import Question, ask
from tests.faults.programs import Node
from tests.processes import until

QUESTION = Question(max_tokens=40)


def gaps(answer: Answer) -> list[float]:
    """Return the times between pieces of text, in milliseconds."""
    return [1000 * (after - before) for before, after in pairwise(answer.text_times)]


def kill_at(gateway: programs.Gateway, nodes: list[Node], starter: ThreadPoolExecutor, cut: int) -> Answer:
    def on_text(pieces: int) -> None:
        if pieces == cut:
            serving = next(row["peer"] for row in gateway.table if row["requests"])
            node = next(node for node in nodes if node.address == serving)
            node.end()
            starter.submit(again, node)

    return ask(gateway.url, QUESTION, on_text)


def again(node: Node) -> None:
    node.start()
    node.wait()


def measure(gateway: programs.Gateway, nodes: list[Node], kills: int) -> tuple[list[float], list[float]]:
    """Return the jitter of undisturbed answers, and the gaps at kills, both relative to the usual gap at the same
    place.
    """
    runs = [gaps(ask(gateway.url, QUESTION)) for _ in range(5)]
    usual = np.median(runs, axis=0)
    jitter, switches = np.max(np.array(runs) - usual, axis=1).tolist(), []
    with ThreadPoolExecutor(1) as starter:
        for number in range(kills):
            cut = 2 + number % 20
            answer = kill_at(gateway, nodes, starter, cut)
            assert answer.complete
            switches.append(float(np.max((np.array(gaps(answer)) - usual)[cut - 1 :])))
            starter.submit(int).result()  # the node is back
    return jitter, switches


def main() -> None:
    parser = argparse.ArgumentParser(prog="gap", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50.0, help="tokens a second (default: 50)")
    options = parser.parse_args()
    command = (*programs.ECHO, "--echo-rate", str(options.rate))
    with (
        programs.nodes(command, command, command) as nodes,
        programs.gateway([node.address for node in nodes], ()) as gateway,
    ):
        until(lambda: all(row["state"] == "healthy" for row in gateway.table))
        jitter, switches = measure(gateway, nodes, options.kills)
    p50, p99 = np.percentile(switches, [50, 99])
    print(f"{len(switches)} kills: {p50:.1f} ms (p50), {p99:.1f} ms (p99), {max(switches):.1f} ms at most")
    print(f"without a kill, the worst of an answer: {np.median(jitter):.1f} ms (p50)")


if __name__ == "__main__":
    main()
