"""Nodes killed after each token of a message in Anthropic's dialect."""

from __future__ import annotations

from typing import Any

from tests.faults import lab
from tests.faults.answers import Answer
from tests.faults.asking import MESSAGES, Question
from tests.faults.conftest import Record
from tests.faults.reviving import revived

TOKENS = 24
QUESTION = Question(path=MESSAGES, seed=None, temperature=0.0, max_tokens=TOKENS)


def test_a_message_after_every_token(pool: lab.Pool, record_property: Record) -> None:
    """The events of a stream are those of an undisturbed one, but for the id, whenever its node is killed."""
    pool.heal()
    undisturbed = events_of(pool.ask(QUESTION))
    assert undisturbed[-1] == {"type": "message_stop"}
    with revived(pool) as fault:
        answers = [pool.ask_through(QUESTION, (cut, fault)) for cut in range(TOKENS + 1)]
    same = [cut for cut, answer in enumerate(answers) if events_of(answer) == undisturbed]
    record_property(
        "cell", ("killed after each token of a message", "greedy", f"{len(same)} of {TOKENS + 1} cuts the same")
    )
    assert same == list(range(TOKENS + 1))
    # After its last token, an answer needs no other node.
    assert all(answer.switched for answer in answers[:-1])


def test_a_message_that_is_not_streamed(pool: lab.Pool) -> None:
    """A whole message is that of an undisturbed run, but for the id."""
    question = Question(path=MESSAGES, seed=None, temperature=0.0, max_tokens=TOKENS, stream=False)
    pool.heal()
    whole = without_id(pool.ask(question).events[0])
    with revived(pool) as fault:
        for cut in (0, 9, TOKENS - 1):
            assert without_id(pool.ask_through(question, (cut, fault)).events[0]) == whole


def events_of(answer: Answer) -> list[Any]:
    start, *rest = answer.events
    return [start | {"message": without_id(start["message"])}, *rest]


def without_id(message: Any) -> Any:
    return {name: value for name, value in message.items() if name != "id"}
