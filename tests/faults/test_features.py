"""Features of the API while nodes fail: the client gets the answer of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.faults import lab, programs
from tests.faults.cases import Case
from tests.faults.conftest import Record
from tests.faults.dying import WAYS, broken_engine, connection_reset, killed, slow
from tests.faults.features import FEATURES
from tests.faults.reviving import revived
from tests.faults.thinking import CALLS, REASONING, TEXT
from tests.faults.trap import Fault

NODE = ("tests.faults.thinking",)
CUT = 16
"""Tokens of the longest answer at the fault; the other answers are then incomplete, too."""
MIDDLE: dict[str, Fault] = {**WAYS, "error frame": broken_engine}
STICKY = ("--policy", "sticky")


@pytest.fixture(scope="module")
def thinkers() -> Iterator[lab.Pool]:
    """Run two nodes that reason and call tools, one token per frame, and a gateway with the sticky policy."""
    with lab.pool(NODE, NODE, flags=(*programs.QUICK, *STICKY), one_by_one=True) as pool:
        yield pool


@pytest.fixture
def pool(thinkers: lab.Pool) -> Iterator[lab.Pool]:
    yield thinkers
    thinkers.heal()


@pytest.fixture(scope="module")
def undisturbed(thinkers: lab.Pool) -> dict[str, Case]:
    return {name: Case(question, CUT, thinkers.ask(question)) for name, question in FEATURES.items()}


def same(pool: lab.Pool, cases: Mapping[str, Case], *faults: tuple[int, Fault]) -> list[str]:
    """Ask all questions at once; return the names of those that lost a node and whose answer equals the undisturbed
    one.
    """
    answers = pool.ask_all_through([case.question for case in cases.values()], *faults)
    asked = zip(cases.items(), answers, strict=True)
    return [name for (name, case), answer in asked if case.same(answer) and answer.switched]


def test_undisturbed(undisturbed: dict[str, Case]) -> None:
    """The undisturbed answers, to which interrupted ones are compared, have reasoning, calls and logprobs."""
    logprobs, two, penalties, thoughts, sure, whole = (case.undisturbed for case in undisturbed.values())
    assert len(logprobs.choices[0].tokens) == len(logprobs.choices[0].logprobs) == 24
    assert [len(choice.logprobs) for choice in two.choices.values()] == [12, 12]
    assert two.choices[0].text != two.choices[1].text
    assert penalties.choices[0].text not in (logprobs.choices[0].text, "")
    for choice in (*thoughts.choices.values(), *sure.choices.values(), *whole.choices.values()):
        assert (choice.reasoning, choice.text, choice.reasons) == (REASONING, TEXT, ["tool_calls"])
        assert [(call.name, call.arguments) for call in choice.calls.values()] == list(CALLS)
    assert whole.choices.keys() == {0, 1}
    assert "look, zweimal" in "".join(each["token"] for each in sure.choices[0].logprobs)
    assert thoughts.usages[0]["completion_tokens_details"]["reasoning_tokens"] > 5


@pytest.mark.parametrize("way", MIDDLE)
def test_in_the_middle(way: str, pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """A node fault in the middle of an answer does not change its text, reasoning, calls, logprobs, token ids, finish
    reasons or usage.
    """
    for feature in undisturbed:
        record_property("cell", (way, feature, "same"))
    assert same(pool, undisturbed, (CUT, MIDDLE[way])) == list(undisturbed)


@pytest.mark.parametrize(
    ("way", "fault"), [("killed before a first token", killed), ("too slow to a first token", slow)]
)
def test_before_the_first_token(
    way: str, fault: Fault, pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record
) -> None:
    """A node that accepted a request but sends no token is replaced; the answer has its reasoning, calls and
    logprobs.
    """
    name = "the same with logprobs"
    record_property("cell", (way, name, "same"))
    assert same(pool, {name: undisturbed[name]}, (0, fault)) == [name]


def test_killed_after_every_token(pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record) -> None:
    """An answer with two choices is unchanged if its node is killed before the first token, after any token or after
    the last.
    """
    feature = "n = 2, logprobs"
    with revived(pool) as fault:
        cuts = same_cuts(pool, undisturbed[feature], fault, 24)
    record_property("cell", ("killed after each token", feature, f"{len(cuts)} of 25 cuts the same"))
    assert cuts == list(range(25))


@pytest.mark.parametrize("feature", ["logprobs, token ids", "the same with logprobs"])
def test_reset_after_every_token(
    feature: str, pool: lab.Pool, undisturbed: dict[str, Case], record_property: Record
) -> None:
    """An answer with calls or logprobs is unchanged if its connection is reset after any token."""
    case = undisturbed[feature]
    tokens = case.undisturbed.usages[0]["completion_tokens"]
    cuts = same_cuts(pool, case, connection_reset, tokens)
    record_property("cell", ("reset after each token", feature, f"{len(cuts)} of {tokens + 1} cuts the same"))
    assert cuts == list(range(tokens + 1))


def same_cuts(pool: lab.Pool, case: Case, fault: Fault, tokens: int) -> list[int]:
    return [cut for cut in range(tokens + 1) if case.same(pool.ask_through(case.question, (cut, fault)))]
