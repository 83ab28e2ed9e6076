"""Forced calls and structured outputs of a real model whose node is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec
import pytest

from tests.faults import lab
from tests.faults.answers import Answer, Choice
from tests.faults.cases import Case
from tests.faults.conftest import Record
from tests.faults.dying import connection_reset
from tests.faults.features import PHRASE, REAL
from tests.faults.reviving import revived

NODE = ("subnet.cli", "node", "--threads", "1", "--context-length", "512")


@pytest.fixture(scope="module")
def pool() -> Iterator[lab.Pool]:
    """Run two nodes with the real model, and a gateway with default timeouts and the sticky policy."""
    with lab.pool(NODE, NODE, flags=("--policy", "sticky"), one_by_one=True) as pool:
        yield pool


@pytest.fixture(scope="module")
def undisturbed(pool: lab.Pool) -> dict[str, Case]:
    """Undisturbed answers, with the fault in the middle."""
    found: dict[str, Case] = {}
    for feature, question in REAL.items():
        question = msgspec.structs.replace(question, model=pool.model)
        answer = pool.ask(question)
        found[feature] = Case(question, answer.usages[0]["completion_tokens"] // 2, answer)
    return found


def comparable(answer: Answer) -> tuple[dict[int, Choice], int]:
    """Return everything of an answer that does not depend on the content of its node's prompt cache."""
    return answer.choices, answer.usages[0]["completion_tokens"]


def test_undisturbed(undisturbed: dict[str, Case]) -> None:
    """The real model's forced call and JSON match their schema, and its text the regular expression."""
    called, form, phrase = (case.undisturbed.choices[0] for case in undisturbed.values())
    (call,) = called.calls.values()
    assert (call.name, called.reasons) == ("weather", ["tool_calls"])
    for arguments in (call.arguments, form.text):
        found = json.loads(arguments)
        assert found.keys() == {"city", "days"}
        assert 1 <= found["days"] <= 9
    assert re.fullmatch(PHRASE, phrase.text)


@pytest.mark.parametrize("feature", REAL)
def test_cut(feature: str, pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """A real model's structured answer is unchanged, bit by bit, if its node is lost near the beginning, in the middle
    or near the end.
    """
    case = undisturbed[feature]
    with revived(pool) as fault:
        cuts = [(3, connection_reset), (case.after, fault), (2 * case.after - 2, connection_reset)]
        answers = [pool.ask_through(case.question, cut) for cut in cuts]
    pool.heal()
    same = [answer.complete and comparable(answer) == comparable(case.undisturbed) for answer in answers]
    says = f"{sum(same)} of {len(same)} cuts the same"
    record_property("cell", (f"killed, with the real model: {feature}", "with a seed", says))
    assert all(same)
    assert [answer.switched for answer in answers] == [1, 1, 1]
