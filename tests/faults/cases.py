"""Questions that are asked while a node fails, and their undisturbed answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import msgspec

from tests.faults.answers import Answer
from tests.faults.asking import Question

CUT = 9
FEATURES = ("greedy", "with a seed", "stop across the cut", "character across the cut", "not streamed")
EARLY = ("greedy", "with a seed", "not streamed")
"""Cases for a fault before the first token."""


class Case(msgspec.Struct, frozen=True):
    """A question and its undisturbed answer; the fault happens after `after` tokens."""

    question: Question
    after: int
    undisturbed: Answer

    def same(self, answer: Answer) -> bool:
        return answer.complete and answer.outcome == self.undisturbed.outcome


def cases(ask: Callable[[Question], Answer]) -> dict[str, Case]:
    """Return the cases by their names in FEATURES. `ask` sends a question to an undisturbed pool of echo nodes."""
    plain = Question()
    stop, inside = _across(beginnings(ask, plain))
    wanted = {
        "greedy": (Question(temperature=0.0, seed=None), CUT),
        "with a seed": (plain, CUT),
        "stop across the cut": (Question(stop=stop), CUT),
        "character across the cut": (plain, inside),
        "not streamed": (Question(stream=False), CUT),
    }
    found = {name: Case(question, after, ask(question)) for name, (question, after) in wanted.items()}
    assert all(case.undisturbed.complete for case in found.values())
    assert found["stop across the cut"].undisturbed.reasons == ["stop"]
    return found


def beginnings(ask: Callable[[Question], Answer], question: Question) -> list[str]:
    """Return the text of the first token, of the first two, and so on."""
    assert question.max_tokens is not None
    shorter = [msgspec.structs.replace(question, max_tokens=size + 1) for size in range(question.max_tokens)]
    with ThreadPoolExecutor(len(shorter)) as threads:
        return ["".join(answer.texts) for answer in threads.map(ask, shorter)]


def _across(texts: list[str]) -> tuple[str, int]:
    """Return a stop string of which half lies before the cut, and a cut in the middle of a character."""
    at = len(texts[CUT - 1])
    stop = texts[-1][at - 3 : at + 3]
    assert texts[-1].index(stop) == at - 3
    # A token that adds no text is the beginning of a character.
    inside = next(number + 2 for number, (before, after) in enumerate(pairwise(texts)) if before == after)
    return stop, inside
