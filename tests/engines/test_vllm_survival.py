"""Two real vLLMs behind the gateway, of which the one that answers is killed in the middle of an answer."""

from __future__ import annotations

import json

import pytest

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
def test_killed(both: Servers, name: str, record_property: Record) -> None:
    """Clients on both lanes get one complete answer, which begins as the undisturbed one, and not a token too many."""
    question = QUESTIONS[name]
    whole = {lane: both.ask(lane, question).choices[0].text for lane in both.gateways}
    for lane, answer in both.ask_all_and_kill(question, CUT).items():
        assert answer.complete, answer.events
        assert answer.switched == 1
        assert answer.usages[0]["completion_tokens"] == question.max_tokens
        assert answer.reasons == ["length"]
        if name != "unseeded":
            assert answer.choices[0].text.startswith(whole[lane][: len("".join(answer.texts[:CUT]))])
            record_property(f"same on the {lane} lane", answer.choices[0].text == whole[lane])


def test_killed_in_a_json_object(both: Servers) -> None:
    """Greedy answers under a schema are replayed on the other server and stay valid."""
    question = asked(STORY, prompt="Plan a trip.", max_tokens=60, **FORM)
    for answer in both.ask_all_and_kill(question, 4).values():
        assert answer.complete, answer.events
        assert answer.switched == 1
        assert json.loads(answer.choices[0].text).keys() == {"city", "days"}
