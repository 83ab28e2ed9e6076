"""A real vLLM behind the gateway, on both lanes, against its own answers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from subnet.engines.vllm import VllmEngine
from subnet.generation import derive_seed
from subnet.http.node_spec import NodeSpec
from subnet.node_info import Lane
from tests.engines.conftest import Servers
from tests.engines.server import NAME, post
from tests.engines.vllm_server import CONTEXT
from tests.faults.answers import Answer
from tests.faults.asking import Question, connect, send
from tests.processes import until

STORY = Question(prompt="Tell me a story about a lighthouse.", temperature=0.0, seed=None)
LOGPROBS = {"logprobs": True, "top_logprobs": 5}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "maximum": 30}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FORM = {"response_format": {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True}}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,  # else vLLM's own arguments do not follow the schema
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def asked(question: Question, **more: Any) -> Question:
    """Return `question` with other parameters."""
    fields = {name: more.pop(name) for name in question.__struct_fields__ if name in more}
    return msgspec.structs.replace(question, **fields, more={**question.more, **more})


def content(answer: Answer) -> tuple[str, list[Any], list[str], int, int]:
    """Return everything that must equal vLLM's own answer: text, logprobs, finish reason, usage."""
    (choice,), (usage,) = answer.choices.values(), answer.usages
    return choice.text, choice.logprobs, choice.reasons, usage["prompt_tokens"], usage["completion_tokens"]


def test_detection(servers: Servers, lane: Lane) -> None:
    """Type, version and lane are detected, and the tokenizer is loaded from where vLLM has its model."""
    gateway = servers.gateways[lane]
    assert [(row["model"], row["lane"], row["state"]) for row in gateway.table] == [(NAME, lane, "healthy")] * 2
    lines = [line for line in gateway.lines if f"vLLM 0.32.0, serves {NAME}, {lane} lane" in line]
    assert len(lines) == 2, gateway.lines


@pytest.mark.parametrize("stream", [True, False])
def test_greedy_with_logprobs(servers: Servers, lane: Lane, stream: bool) -> None:
    """Text, logprobs to the last digit, finish reason and usage are vLLM's own."""
    question = asked(STORY, stream=stream, **LOGPROBS)
    servers.ask_directly(question)  # so that the prompt is in vLLM's cache for all
    own = servers.ask_directly(question)
    answer = servers.ask(lane, question)
    assert answer.complete, answer.events
    assert len(answer.choices[0].logprobs) == question.max_tokens
    assert content(answer) == content(own)


def test_the_end_of_an_answer(servers: Servers, lane: Lane) -> None:
    """An answer that ends by itself has vLLM's text, finish reason and usage; vLLM counts the end token, too."""
    question = asked(STORY, prompt="What is the capital of France?")
    own, answer = servers.ask_directly(question), servers.ask(lane, question)
    assert answer.complete, answer.events
    assert answer.reasons == ["stop"]
    *same, count = content(answer)
    assert [*same, count + (lane == "token")] == [*content(own)]


def test_stop_strings(servers: Servers, lane: Lane) -> None:
    """A stop string ends the answer before it."""
    own = servers.ask_directly(STORY).choices[0].text
    stop = own.split()[5]
    answer = servers.ask(lane, asked(STORY, stop=stop))
    assert answer.complete, answer.events
    assert answer.choices[0].text == own[: own.index(stop)]
    assert answer.reasons == ["stop"]


def test_a_seed_on_the_chat_lane(servers: Servers) -> None:
    """On the chat lane vLLM gets the caller's seed as it is."""
    question = asked(STORY, temperature=1.0, seed=11)
    own, answer = servers.ask_directly(question), servers.ask("chat", question)
    assert content(answer) == content(own)


def test_a_seed_on_the_token_lane(servers: Servers) -> None:
    """On the token lane the answer is vLLM's own to a seed that is derived from the caller's."""
    question = asked(STORY, temperature=1.0, seed=11, return_token_ids=True)
    messages = json.loads(question.body)["messages"]
    prompt = post(f"{servers.first.url}/tokenize", {"model": NAME, "messages": messages})["tokens"]
    body = {"model": NAME, "prompt": prompt, "max_tokens": question.max_tokens, "temperature": 1.0}
    own = post(f"{servers.first.url}/v1/completions", {**body, "seed": derive_seed(11, 0), "return_token_ids": True})
    answer = servers.ask("token", question)
    assert answer.complete, answer.events
    assert answer.choices[0].tokens == own["choices"][0]["token_ids"]


async def test_draws(servers: Servers) -> None:
    """vLLM on a CPU has its V1 runner, whose generator starts anew for each request, and that is found out."""
    async with VllmEngine(NodeSpec(url=servers.first.url)) as engine:
        assert not engine.capabilities.positional_draws


def test_seeds_repeat_and_differ(servers: Servers, lane: Lane) -> None:
    """The same seed gives the same answer, another seed or none another one, and choices differ from each other."""
    sampled = asked(STORY, temperature=1.0, n=2)
    one, again, other, none = (servers.ask(lane, asked(sampled, seed=seed)) for seed in (3, 3, 40, None))
    assert one.choices == again.choices
    texts = [answer.choices[index].text for answer in (one, other, none) for index in (0, 1)]
    assert len(set(texts)) == 6


def test_json_schema(servers: Servers, lane: Lane) -> None:
    """An answer follows a strict JSON schema."""
    answer = servers.ask(lane, asked(STORY, prompt="Plan a trip.", max_tokens=60, **FORM))
    assert answer.complete, answer.events
    assert json.loads(answer.choices[0].text).keys() == {"city", "days"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_forced_calls(servers: Servers, lane: Lane, choice: Any) -> None:
    """A forced call of a function is one, with arguments that follow its schema."""
    question = asked(STORY, prompt="How is the weather in Paris?", max_tokens=80, tools=[WEATHER], tool_choice=choice)
    answer = servers.ask(lane, asked(question, parallel_tool_calls=False))
    assert answer.complete, answer.events
    calls = answer.choices[0].calls.values()
    assert [(call.name, [*json.loads(call.arguments)]) for call in calls] == [("weather", ["city"])]


@pytest.mark.parametrize(
    "more", [{"guided_regex": "[0-9]{3}"}, {"structured_outputs": {"regex": "[0-9]{3}"}}], ids=["guided", "structured"]
)
def test_regular_expressions(servers: Servers, lane: Lane, more: dict[str, Any]) -> None:
    """Both forms of vLLM's structured outputs have an effect, also the one that it has removed."""
    answer = servers.ask(lane, asked(STORY, **more))
    assert answer.choices[0].text.isdecimal(), answer.events
    assert len(answer.choices[0].text) == 3
    assert answer.reasons == ["stop"]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"typical_p": 0.5}, "typical_p", ""),
    ({"top_logprobs": 21, "logprobs": True}, "logprobs", ""),
    ({"temperature": -1}, "temperature", ""),
    ({"prompt": "so " * 2 * CONTEXT}, "context length", "context_length_exceeded"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("more", "param", "code"), REFUSED, ids=[param for _, param, _ in REFUSED])
def test_refused_requests(
    servers: Servers, lane: Lane, more: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    """What vLLM cannot do is refused by name with a 400, and does not count against the servers."""
    answer = servers.ask(lane, asked(STORY, **more, stream=stream))
    (error,) = answer.errors
    assert answer.status == 400
    assert param in f"{error['param']} {error['message']}"
    assert code in ("", error["code"])
    assert servers.states(lane) == {"healthy"}


def test_more_tokens_than_the_context(servers: Servers, lane: Lane) -> None:
    """A limit beyond vLLM's context is bounded by it, and a header says so."""
    answer = servers.ask(lane, asked(STORY, max_tokens=5000, stop=["lighthouse"]))
    assert answer.complete, answer.events
    assert int(answer.headers["x-max-tokens-bounded"]) < CONTEXT
    assert servers.states(lane) == {"healthy"}


def test_an_invalid_schema(servers: Servers, lane: Lane) -> None:
    """A schema that vLLM reports only inside the stream is the client's mistake all the same; so is one that the
    gateway must follow.
    """
    wrong = {"type": "nonsense"}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": wrong}}
    more: dict[str, Any] = {"response_format": form} if lane == "chat" else {"structured_outputs": {"json": wrong}}
    answer = servers.ask(lane, asked(STORY, **more))
    assert answer.status == 400, answer.events
    assert servers.states(lane) == {"healthy"}


def test_clients_that_leave(servers: Servers, lane: Lane) -> None:
    """When a client leaves, vLLM stops generating for it."""
    aborted = servers.first.metric("vllm:request_success_total", finished_reason="abort")
    connection = connect(servers.gateways[lane].url)
    send(connection, asked(STORY, model=NAME, max_tokens=900, ignore_eos=True))
    assert connection.getresponse().read(200)
    assert servers.first.metric("vllm:num_requests_running") == 1
    connection.close()
    until(lambda: servers.first.metric("vllm:num_requests_running") == 0)
    assert servers.first.metric("vllm:request_success_total", finished_reason="abort") <= aborted + 1
