"""Forced calls and structured output of the real model, whose node is killed in the middle."""

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
    """Two nodes, and a gateway of usual patience that keeps a user with one of them."""
    with lab.pool(NODE, NODE, flags=("--policy", "sticky"), one_by_one=True) as pool:
        yield pool


@pytest.fixture(scope="module")
def undisturbed(pool: lab.Pool) -> dict[str, Case]:
    """Cut after half of the tokens."""
    found: dict[str, Case] = {}
    for feature, question in REAL.items():
        question = msgspec.structs.replace(question, model=pool.model)
        answer = pool.ask(question)
        found[feature] = Case(question, answer.usages[0]["completion_tokens"] // 2, answer)
    return found


def told(answer: Answer) -> tuple[dict[int, Choice], int]:
    """What of an answer does not depend on what its node happened to have in its cache."""
    return answer.choices, answer.usages[0]["completion_tokens"]


def test_undisturbed(undisturbed: dict[str, Case]) -> None:
    """The call and the JSON fit their schema, the text its expression."""
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
    """Near the beginning, in the middle, near the end; in the middle the node is killed. Nobody can tell, to the last
    bit of a logprob.
    """
    case = undisturbed[feature]
    with revived(pool) as fault:
        cuts = [(3, connection_reset), (case.after, fault), (2 * case.after - 2, connection_reset)]
        answers = [pool.ask_through(case.question, cut) for cut in cuts]
    pool.heal()
    same = [answer.complete and told(answer) == told(case.undisturbed) for answer in answers]
    says = f"{sum(same)} of {len(same)} cuts the same"
    record_property("cell", (f"killed, with the real model: {feature}", "with a seed", says))
    assert all(same)
    assert [answer.switched for answer in answers] == [1, 1, 1]
