"""Two real vLLMs behind the gateway, of which the one that answers is killed in the middle of an answer."""

from __future__ import annotations

import json

import pytest

from subnet.node_info import Lane
from tests.engines.conftest import Servers
from tests.engines.test_vllm import FORM, STORY, asked
from tests.faults.conftest import Record

CUT = 12
"""Pieces of text before the kill."""
# Long enough not to be over when a busy machine gets to the kill.
WHOLE = asked(STORY, max_tokens=160, ignore_eos=True)
QUESTIONS = {
    "greedy": WHOLE,
    "seeded": asked(WHOLE, temperature=1.0, seed=5),
    "unseeded": asked(WHOLE, temperature=1.0),
}


@pytest.fixture
def both(servers: Servers) -> Servers:
    """Return the servers, of which those that were killed have been started again. That takes the most time here."""
    servers.mend()
    return servers


@pytest.mark.parametrize("name", QUESTIONS)
def test_killed(both: Servers, lane: Lane, name: str, record_property: Record) -> None:
    """The client gets one complete answer, which begins as the undisturbed one, and not a token more or less."""
    question = QUESTIONS[name]
    whole = both.ask(lane, question).choices[0].text
    answer = both.ask_and_kill(lane, question, CUT)
    assert answer.complete, answer.events
    assert answer.switched == 1
    assert answer.usages[0]["completion_tokens"] == question.max_tokens
    assert answer.reasons == ["length"]
    if name != "unseeded":
        assert answer.choices[0].text.startswith(whole[: len("".join(answer.texts[:CUT]))])
        record_property("same", answer.choices[0].text == whole)


def test_killed_in_a_json_object(both: Servers, lane: Lane) -> None:
    """A greedy answer under a schema is replayed on the other server and stays valid."""
    question = asked(STORY, prompt="Plan a trip.", max_tokens=60, **FORM)
    answer = both.ask_and_kill(lane, question, 4)
    assert answer.complete, answer.events
    assert answer.switched == 1
    assert json.loads(answer.choices[0].text).keys() == {"city", "days"}
