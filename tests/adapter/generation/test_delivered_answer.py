"""Comparison of a fallback's answer with what was delivered of another model's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from adapter.decode.events import CallArguments, CallStarted, Event, Finished, ReasoningDelta, TextDelta
from adapter.generation.delivered_answer import AnswerDiffersError, DeliveredAnswer

CALL = CallStarted(0, 0, "call_1", "weather")


def delivered(*events: Event) -> tuple[DeliveredAnswer, list[Event]]:
    """Return an answer of which `events` were delivered, and the list that gets all later ones."""
    passed_on: list[Event] = []
    answer = DeliveredAnswer(passed_on.append)
    for event in events:
        answer.receive(event)
    passed_on.clear()
    return answer, passed_on


@pytest.mark.parametrize(
    "again",
    [
        [TextDelta(0, "A more")],
        [TextDelta(0, "A"), CALL],
        [TextDelta(0, "A"), CallArguments(0, 0, "{}")],
        [TextDelta(0, "A"), Finished(0, "length")],
        [TextDelta(0, "A"), ReasoningDelta(0, "hm")],
    ],
)
def test_a_finished_choice_gets_nothing_more(again: Sequence[Event]) -> None:
    """Whatever an answer adds to a choice that was delivered to its end makes it another answer."""
    answer, passed_on = delivered(TextDelta(0, "A"), Finished(0, "stop"), TextDelta(1, "B"))
    sink = answer.resume(tuple, 0)
    for event in again[:-1]:
        sink(event)
    with pytest.raises(AnswerDiffersError):
        sink(again[-1])
    assert passed_on == []


@pytest.mark.parametrize("size", [1, 2, 5])
def test_only_what_is_new_is_passed_on(size: int) -> None:
    """However the repeated answer is split, the new part of its text and calls is passed on, and nothing else."""
    answer, passed_on = delivered(TextDelta(0, "One two"), CALL, CallArguments(0, 0, '{"a"'))
    sink = answer.resume(tuple, 0)
    text, arguments = "One two", '{"a": 1}'
    for start in range(0, len(text), size):
        sink(TextDelta(0, text[start : start + size]))
    sink(CallStarted(0, 0, "another id", "weather"))
    for start in range(0, len(arguments), size):
        sink(CallArguments(0, 0, arguments[start : start + size]))
    sink(Finished(0, "tool_calls"))
    new = "".join(event.text for event in passed_on if isinstance(event, CallArguments))
    assert (new, passed_on[-1]) == (": 1}", Finished(0, "tool_calls"))
    assert not any(isinstance(event, TextDelta | CallStarted) for event in passed_on)


@pytest.mark.parametrize("early", [TextDelta(0, "Two"), Finished(0, "stop"), ReasoningDelta(0, "hm"), CALL])
def test_an_answer_that_leaves_out_a_part_differs(early: Event) -> None:
    """An answer that goes on before it has repeated everything is another answer."""
    answer, passed_on = delivered(TextDelta(0, "One two"))
    sink = answer.resume(tuple, 0)
    sink(TextDelta(0, "One"))
    with pytest.raises(AnswerDiffersError):
        sink(early)
    assert passed_on == []
