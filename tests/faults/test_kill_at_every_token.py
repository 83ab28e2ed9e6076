"""Nodes killed after each token of an answer: the client gets the answer of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import lab, programs
from tests.faults.answers import Answer, Choice
from tests.faults.asking import Question, ask
from tests.faults.cases import Case
from tests.faults.conftest import Record
from tests.faults.dying import connection_reset, killed
from tests.faults.reviving import revive, revived
from tests.faults.trap import Fault

TOKENS = 24


def test_after_every_token(pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """An answer is unchanged if its node is killed before the first token, after any token or after the last."""
    with revived(pool) as fault:
        same = same_cuts(pool, undisturbed["with a seed"], fault)
    record_property("cell", ("killed after each token", "with a seed", f"{len(same)} of {TOKENS + 1} cuts the same"))
    assert same == list(range(TOKENS + 1))


def test_cut_off_after_every_token(pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """An answer is unchanged if its connection is reset before the first token, after any token or after the last."""
    same = same_cuts(pool, undisturbed["greedy"], connection_reset)
    record_property("cell", ("reset after each token", "greedy", f"{len(same)} of {TOKENS + 1} cuts the same"))
    assert same == list(range(TOKENS + 1))


def same_cuts(pool: lab.Pool, case: Case, fault: Fault) -> list[int]:
    return [cut for cut in range(TOKENS + 1) if case.same(pool.ask_through(case.question, (cut, fault)))]


def test_after_every_piece_of_text(undisturbed: dict[str, Case]) -> None:
    """An answer is unchanged if the client kills its node after a piece of text, without a proxy in between."""
    case = undisturbed["with a seed"]
    with programs.nodes(programs.PACED, programs.PACED, programs.PACED) as nodes, ThreadPoolExecutor(1) as starter:
        with programs.gateway([node.address for node in nodes]) as gateway:
            for cut in range(1, len(case.undisturbed.texts), 3):

                def on_text(pieces: int, cut: int = cut) -> None:
                    if pieces == cut:
                        serving = next(row["peer"] for row in gateway.table if row["requests"])
                        node = next(node for node in nodes if node.address == serving)
                        node.end()
                        starter.submit(revive, node)

                answer = ask(gateway.url, case.question, on_text)
                assert answer.outcome == case.undisturbed.outcome, f"after piece {cut}"
                assert answer.complete


def test_all_nodes_but_one(pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """An answer is unchanged if all nodes but one are killed one after the other."""
    record_property("cell", ("all nodes but one killed", "with a seed", "same"))
    case = undisturbed["with a seed"]
    assert case.same(pool.ask_through(case.question, (5, killed), (0, killed)))
    pool.heal()
    assert case.same(pool.ask_through(case.question, (5, killed), (7, killed)))


def test_many_deaths(pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """An answer is unchanged if its node is killed after three tokens, seven times in a row."""
    record_property("cell", ("killed seven times", "with a seed", "same"))
    case = undisturbed["with a seed"]
    with revived(pool) as fault:
        assert case.same(pool.ask_through(case.question, *[(3, fault)] * 7))


REAL = ("subnet.cli", "node", "--threads", "1", "--context-length", "512")


@pytest.fixture(scope="module")
def real() -> Iterator[lab.Pool]:
    """Run three nodes with the real model, and a gateway with default timeouts."""
    with lab.pool(REAL, REAL, REAL, flags=(), one_by_one=True) as pool:
        yield pool


@pytest.mark.parametrize(
    ("how", "temperature", "seed"), [("greedy", 0.0, None), ("with a seed", 1.0, 7)], ids=["greedy", "seeded"]
)
def test_the_real_model(
    how: str, temperature: float, seed: int | None, real: lab.Pool, record_property: Record
) -> None:
    """A real model's answer is unchanged if its node is killed after any of several tokens."""
    question = Question(
        model=real.model, prompt="Tell me of the sea.", max_tokens=40, temperature=temperature, seed=seed
    )
    undisturbed = comparable(real.ask(question))
    cuts = (1, 11, 22, 35)
    with revived(real) as fault:
        same = [cut for cut in cuts if comparable(real.ask_through(question, (cut, fault))) == undisturbed]
    record_property("cell", ("killed, with the real model", how, f"{len(same)} of {len(cuts)} cuts the same"))
    assert same == list(cuts)


def comparable(answer: Answer) -> tuple[dict[int, Choice], list[int]]:
    """Return everything of an answer that does not depend on the content of its node's prompt cache."""
    assert answer.complete
    choices, (usage,) = answer.outcome
    return choices, [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]]


def test_cached_tokens(real: lab.Pool) -> None:
    """After a failover the usage reports the cached tokens of the first node, not those of the second."""
    question = Question(model=real.model, prompt="Name a river.", max_tokens=8)
    real.heal()
    for _ in range(2 * len(real.nodes)):
        real.ask(question)
    undisturbed = [real.ask(question).usages for _ in real.nodes]
    assert undisturbed == [undisturbed[0]] * len(real.nodes)
    assert real.ask_through(question, (4, connection_reset)).usages == undisturbed[0]
    real.heal()
