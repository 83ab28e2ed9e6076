"""Every kind of node fault in the middle of an answer: the client gets the answer of an undisturbed run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import lab, programs
from tests.faults.asking import Question
from tests.faults.cases import EARLY, FEATURES, Case
from tests.faults.conftest import Record
from tests.faults.dying import WAYS, broken_engine, half_open, killed, slow
from tests.faults.proxy import Link
from tests.faults.trap import Fault


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("way", WAYS)
def test_in_the_middle(
    way: str, feature: str, pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record
) -> None:
    """A node fault in the middle of an answer does not change its text, finish reason or usage."""
    record_property("cell", (way, feature, "same"))
    case = undisturbed[feature]
    answer = pool.ask_through(case.question, (case.after, WAYS[way]))
    assert answer.outcome == case.undisturbed.outcome
    assert answer.complete


@pytest.mark.parametrize("feature", EARLY)
@pytest.mark.parametrize(
    ("way", "fault"), [("killed before a first token", killed), ("too slow to a first token", slow)]
)
def test_before_the_first_token(
    way: str, fault: Fault, feature: str, pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record
) -> None:
    """A node that accepted a request but sends no token is replaced; the answer is unchanged."""
    record_property("cell", (way, feature, "same"))
    case = undisturbed[feature]
    assert case.same(pool.ask_through(case.question, (0, fault)))


@pytest.fixture(scope="module")
def breakable() -> Iterator[lab.Pool]:
    with lab.pool(("tests.faults.breakable",), ("tests.faults.breakable",)) as pool:
        yield pool


@pytest.mark.parametrize("feature", FEATURES)
def test_an_error_frame(
    feature: str, breakable: lab.Pool, undisturbed: dict[str, Case], record_property: Record
) -> None:
    """An answer whose node reports an engine error in the middle is completed by another node, unchanged."""
    record_property("cell", ("error frame", feature, "same"))
    case = undisturbed[feature]
    assert case.same(breakable.ask_through(case.question, (case.after, broken_engine)))
    breakable.heal()


@pytest.fixture(scope="module")
def alone() -> Iterator[lab.Pool]:
    with lab.pool(programs.PACED) as pool:
        yield pool


@pytest.mark.parametrize("feature", FEATURES)
def test_the_only_node_is_restarted(
    feature: str, alone: lab.Pool, undisturbed: dict[str, Case], record_property: Record
) -> None:
    """An answer is completed, unchanged, by its only node after that was killed and restarted."""
    record_property("cell", ("the only node, started again", feature, "same"))

    def started_again(link: Link) -> None:
        killed(link)
        starter.submit(alone.nodes[0].again)

    case = undisturbed[feature]
    with ThreadPoolExecutor(1) as starter:
        assert case.same(alone.ask_through(case.question, (case.after, started_again)))
    alone.nodes[0].wait()
    alone.heal()


def test_a_node_that_is_only_stopped_for_a_moment(pool: lab.Pool, undisturbed: dict[str, Case]) -> None:
    """A node that resumes after the gateway gave it up does not disturb its former or its next answers."""
    case = undisturbed["with a seed"]
    for _ in pool.nodes:
        assert case.same(pool.ask_through(case.question, (case.after, half_open)))
        pool.heal()
        assert case.same(pool.ask(case.question))


@pytest.fixture(scope="module")
def narrow() -> Iterator[lab.Pool]:
    """Run two nodes with one slot each."""
    single = (*programs.PACED, "--concurrency", "1")
    with lab.pool(single, single) as pool:
        yield pool


def test_every_node_is_full(narrow: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """Requests beyond the capacity of all nodes wait for a slot, and all get their answers."""
    record_property("cell", ("full", "with a seed", "same"))
    case = undisturbed["with a seed"]
    with ThreadPoolExecutor(3) as clients:
        answers = list(clients.map(narrow.ask, [case.question] * 3))
        assert all(case.same(answer) for answer in answers)


def test_the_other_node_is_full(narrow: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """An answer whose node dies waits for a slot on the other node, and is unchanged."""
    record_property("cell", ("killed, the others full", "with a seed", "same"))
    case = undisturbed["with a seed"]
    asked = [case.question, Question(prompt="other", max_tokens=100)]
    first, other = narrow.ask_all_through(asked, (case.after, killed))
    assert other.complete
    assert case.same(first)
    narrow.heal()


def test_stopped_nodes_are_used_again(pool: lab.Pool, undisturbed: dict[str, Case]) -> None:
    """Nodes that were stopped and continue get requests again."""
    case = undisturbed["with a seed"]
    for node in pool.nodes[1:]:
        node.send(signal.SIGSTOP)
    assert case.same(pool.ask(case.question))
    assert case.same(pool.ask(case.question))
    pool.heal()
    assert case.same(pool.ask(case.question))
