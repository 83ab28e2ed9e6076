"""Nodes with a second real model killed in the middle of answers: another tokenizer, quantization and attention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.faults import lab
from tests.faults.answers import Answer, Choice
from tests.faults.asking import Question
from tests.faults.conftest import Record
from tests.faults.dying import connection_reset
from tests.faults.reviving import revived

ROW = "killed, with Gemma-3-270m Q4_K_M"
TOKENS = 40
# Three pieces of a prompt and part of a fourth.
QUESTION = Question(
    path="/v1/completions", prompt="The river was wide and slow, and the boats went by. " * 16, max_tokens=TOKENS
)
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0, "seed": None},
    "with a seed": {"temperature": 1.0, "seed": 7},
    "n = 2, logprobs": {"temperature": 1.0, "seed": 7, "more": {"n": 2, "logprobs": 3}},
}


@pytest.fixture(scope="module")
def pool(second_model: Path) -> Iterator[lab.Pool]:
    """Run three nodes with the model, and a gateway with default timeouts."""
    node = ("subnet.cli", "node", "--model", str(second_model), "--threads", "1", "--context-length", "512")
    with lab.pool(node, node, node, flags=(), one_by_one=True) as pool:
        yield pool


def question(pool: lab.Pool, how: str) -> Question:
    return msgspec.structs.replace(QUESTION, model=pool.model, **ASKED[how])


@pytest.mark.parametrize("how", ASKED)
def test_cut(how: str, pool: lab.Pool, record_property: Record) -> None:
    """An answer is unchanged, bit by bit, if its node is killed or lost after any of several tokens."""
    asked = question(pool, how)
    undisturbed = comparable(pool.ask(asked))
    # A node takes seconds to load the model again, so only one is killed.
    with revived(pool) as fault:
        cuts = [(18, fault), *((after, connection_reset) for after in (1, 6, 29, 38))]
        same = [comparable(pool.ask_through(asked, cut)) == undisturbed for cut in cuts]
    record_property("cell", (ROW, how, f"{sum(same)} of {len(same)} cuts the same"))
    assert all(same)


def test_answers_at_the_same_time(pool: lab.Pool) -> None:
    """Three answers of one node do not change one another, nor does a fault that hits all of them."""
    asked = [msgspec.structs.replace(question(pool, "with a seed"), prompt=QUESTION.prompt * n) for n in (1, 1, 2)]
    asked = [msgspec.structs.replace(one, seed=seed, max_tokens=24) for seed, one in enumerate(asked)]
    undisturbed = [comparable(pool.ask(one)) for one in asked]
    with revived(pool) as fault:
        answers = pool.ask_all_through(asked, (8, fault))
    assert [comparable(answer) for answer in answers] == undisturbed


def test_an_answer_is_repeated(pool: lab.Pool) -> None:
    """The same request gives the same answer on any node, with its prompt in the cache and without."""
    pool.heal()
    answers = [comparable(pool.ask(question(pool, "with a seed"))) for _ in range(2 * len(pool.nodes))]
    assert answers == answers[:1] * len(answers)


def comparable(answer: Answer) -> tuple[dict[int, Choice], int]:
    """Return everything of an answer that does not depend on the content of its node's prompt cache."""
    assert answer.complete
    return answer.choices, answer.usages[0]["completion_tokens"]
