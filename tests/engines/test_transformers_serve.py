"""`transformers serve` behind the gateway, on the chat lane, against its own answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engines.fleet import Fleet, node_settings, write_config
from tests.engines.server import MODEL, NAME, Server, running
from tests.engines.test_vllm import FORM, STORY, WEATHER, asked
from tests.faults.answers import Answer
from tests.faults.asking import Question, connect, send
from tests.faults.programs import gateway
from tests.processes import until

CUT = 8
"""Pieces of text before a kill."""


class TransformersServer(Server):
    """Server of one model, which does not list it: it lists what is in its cache, and it has none."""

    name = str(MODEL)
    ready = "/health"

    def __init__(self, folder: Path) -> None:
        environ = {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        super().__init__("transformers", "serve", str(MODEL), environ=environ)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet[TransformersServer]]:
    """Run two servers behind a gateway that is told their addresses and the model's name.

    Its timeout is less than the last request of a queue waits for its first token.
    """
    folder = tmp_path_factory.mktemp("transformers")
    with ExitStack() as stack:
        servers = stack.enter_context(running([TransformersServer(folder / "cache") for _ in range(2)]))
        settings = {"models": {NAME: str(MODEL)}, "first_token_timeout": 5}
        nodes = [node_settings(one, at, **settings) for at, one in enumerate(servers)]
        path = write_config(folder, nodes)
        made = Fleet(servers, {"chat": stack.enter_context(gateway((), ("--config", str(path))))})
        made.mend()
        yield made


@pytest.fixture
def fleet(both: Fleet[TransformersServer]) -> Fleet[TransformersServer]:
    """Return both servers, running."""
    both.mend()
    return both


TransformersFleet = Fleet[TransformersServer]


def ask_directly(fleet: TransformersFleet, question: Question) -> Answer:
    """Return the server's own answer, not streamed: it leaves members out of its chunks that OpenAI requires."""
    return fleet.ask_directly(asked(question, stream=False))


def test_detection(fleet: TransformersFleet) -> None:
    """The type is detected, although the list of models is a 500."""
    (row, _) = fleet.gateways["chat"].table
    assert (row["model"], row["lane"]) == (NAME, "chat")
    lines = [line for line in fleet.gateways["chat"].lines if f"transformers serve, serves {NAME}, chat lane" in line]
    assert len(lines) == 2, fleet.gateways["chat"].lines


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", [STORY.prompt, "What is the capital of France?"])
def test_greedy(fleet: TransformersFleet, prompt: str, stream: bool) -> None:
    """Text, finish reason and usage are the server's own, whether the limit or the model ends the answer."""
    question = asked(STORY, prompt=prompt, stream=stream)
    own, answer = ask_directly(fleet, question), fleet.ask("chat", question)
    assert answer.complete, answer.events
    assert (answer.choices[0].text, answer.reasons) == (own.choices[0].text, own.reasons)
    assert answer.usages[0]["completion_tokens"] == own.usages[0]["completion_tokens"]
    assert answer.usages[0]["prompt_tokens"] == own.usages[0]["prompt_tokens"]


@pytest.mark.parametrize("stream", [True, False])
def test_stop_strings(fleet: TransformersFleet, stream: bool) -> None:
    """A stop string ends the answer before it; the server's own answer ends after it."""
    text = ask_directly(fleet, STORY).choices[0].text
    stop = text.split()[5]
    own = ask_directly(fleet, asked(STORY, stop=stop)).choices[0].text
    answer = fleet.ask("chat", asked(STORY, stop=stop, stream=stream))
    assert answer.complete, answer.events
    assert answer.choices[0].text == text[: text.index(stop)] == own[: own.index(stop)]
    assert stop in own
    assert answer.reasons == ["stop"]


def test_sampling(fleet: TransformersFleet) -> None:
    """A temperature samples, although the model's configuration does not, and the same seed gives the same answer."""
    sampled = asked(STORY, temperature=1.0)
    greedy = ask_directly(fleet, STORY).choices[0].text
    assert ask_directly(fleet, sampled).choices[0].text == greedy
    one, again, other = (fleet.ask("chat", asked(sampled, seed=seed)).choices[0].text for seed in (3, 3, 4))
    assert one == again
    assert len({one, other, greedy}) == 3


def test_parameters_of_its_own_form(fleet: TransformersFleet) -> None:
    """Parameters that the server has only in its own form have an effect."""
    greedy, narrow = fleet.ask("chat", STORY), fleet.ask("chat", asked(STORY, temperature=1.0, top_k=1, seed=5))
    assert narrow.choices == greedy.choices
    biased = fleet.ask("chat", asked(STORY, logit_bias={"28": 100}, max_tokens=3))
    assert biased.choices[0].text == ",,,"
    several = fleet.ask("chat", asked(STORY, n=2, max_tokens=4))
    assert sorted(several.choices) == [0, 1]
    assert several.usages[0]["completion_tokens"] == 8


def test_a_text_completion(fleet: TransformersFleet) -> None:
    """A text completion has the limit and the stop string that were asked for."""
    question = Question(path="/v1/completions", prompt="One, two, three,", temperature=0.0, seed=None, max_tokens=12)
    whole = fleet.ask("chat", question)
    assert whole.complete, whole.events
    assert whole.usages[0]["completion_tokens"] == 12
    text = whole.choices[0].text
    assert fleet.ask("chat", asked(question, stop=text[4:7])).choices[0].text == text[:4]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"logprobs": True}, "logprobs"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    (FORM, "response_format"),
    ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
    ({"nonsense": 1}, "nonsense"),
    ({"temperature": "hot"}, "temperature"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"top_p": 7}, "top_p"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("more", "param"), REFUSED, ids=[param for _, param in REFUSED])
def test_refused(fleet: TransformersFleet, more: dict[str, Any], param: str, stream: bool) -> None:
    """What the server ignores or fails at is refused by name with a 400, and does not count against it."""
    answer = fleet.ask("chat", asked(STORY, **more, stream=stream))
    (error,) = answer.errors
    assert answer.status == 400
    assert param in f"{error['param']} {error['message']}"
    assert fleet.states("chat") == {"healthy"}


def test_an_error_in_the_stream(fleet: TransformersFleet) -> None:
    """A value that the server refuses only after it has begun the stream is the client's mistake all the same."""
    config = json.dumps({"repetition_penalty": -1.0})
    answer = fleet.ask("chat", asked(STORY, generation_config=config))
    assert answer.status == 400, answer.events
    assert fleet.states("chat") == {"healthy"}


def test_clients_that_leave(fleet: TransformersFleet) -> None:
    """When a client leaves, the server stops generating for it."""
    process = psutil.Process(fleet.first.pid)
    connection = connect(fleet.gateways["chat"].url)
    send(connection, asked(STORY, model=NAME, max_tokens=4000, logit_bias={"2": -100}))
    assert connection.getresponse().read(200)
    assert process.cpu_percent(0.5) > 20
    connection.close()
    until(lambda: process.cpu_percent(0.5) < 5)


def test_a_queue(fleet: TransformersFleet) -> None:
    """The server answers one request after the other, and all of them are served by it."""
    question = asked(STORY, max_tokens=48)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: fleet.ask("chat", question), range(6)))
    assert all(answer.complete and answer.switched == 0 for answer in answers)
    assert len({answer.choices[0].text for answer in answers}) == 1


WHOLE = asked(STORY, max_tokens=32)
QUESTIONS = {
    "greedy": asked(WHOLE, stop=["lighthouse keeper", ". "]),
    "seeded": asked(WHOLE, temperature=1.0, seed=5),
    "text completion": asked(WHOLE, prompt="One, two, three,", path="/v1/completions"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_killed(fleet: TransformersFleet, name: str) -> None:
    """The server that answers is killed, and the other one goes on to the same answer."""
    question = QUESTIONS[name]
    whole = fleet.ask("chat", question)
    answer = fleet.ask_and_kill("chat", question, CUT)
    assert answer.complete, answer.events
    assert answer.switched == 1
    assert answer.choices[0].text == whole.choices[0].text
    assert answer.reasons == whole.reasons


def test_killed_where_nothing_repeats(fleet: TransformersFleet) -> None:
    """A sampled answer without a seed cannot be repeated or continued: the client gets one error, and no [DONE]."""
    answer = fleet.ask_and_kill("chat", asked(WHOLE, temperature=1.0), CUT)
    assert "[DONE]" not in answer.events
    assert len(answer.errors) == 1
