"""LiteLLM's proxy as the upstream server: in front of a real vLLM, and of a scripted provider that fails."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from subnet.errors import (
    ContentRefused,
    ContextLengthExceeded,
    InvalidRequest,
    NodeBusy,
    NodeError,
    RateLimited,
    SubnetError,
    Unauthorized,
)
from subnet.http.error_map import NotFound
from tests.chat_node import chat, node
from tests.engines.conftest import Servers
from tests.engines.fleet import Fleet, node_settings, write_config
from tests.engines.routers import KEY, SCRIPTED, LiteLlmProxy
from tests.engines.server import NAME, running
from tests.engines.test_vllm import FORM, LOGPROBS, STORY, WEATHER, asked, content
from tests.engines.test_vllm_survival import CUT, WHOLE
from tests.faults.asking import Question
from tests.faults.programs import gateway
from tests.processes import free_port
from tests.provider import (
    TEXT,
    Provider,
    Script,
    answer,
    connection_reset,
    cut_off,
    error_event,
    error_response,
    malformed,
    truncated,
)

INVALID_SCHEMA = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "nonsense"}}}
}
Proxies = Fleet[LiteLlmProxy]
PROVIDER_PORT = free_port()


@pytest.fixture(scope="module")
def proxies(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    """Run a proxy in front of each vLLM, and a gateway in front of both."""
    folder = tmp_path_factory.mktemp("litellm")
    with ExitStack() as stack:
        made = [LiteLlmProxy(server, tmp_path_factory.mktemp("proxy"), PROVIDER_PORT) for server in servers.servers]
        stack.enter_context(running(made))
        nodes = [node_settings(one, at, api_key=KEY, seeds=True, models={NAME: NAME}) for at, one in enumerate(made)]
        running_gateway = stack.enter_context(gateway((), ("--config", str(write_config(folder, nodes)))))
        fleet = Fleet(made, {"chat": running_gateway}, behind=servers.servers)
        fleet.mend()
        yield fleet


@pytest.fixture
def both(proxies: Proxies) -> Proxies:
    """Return the proxies, of which all that was killed has been started again."""
    proxies.mend()
    return proxies


@pytest.fixture
async def provider(proxies: Proxies) -> AsyncIterator[Provider]:
    """Return the scripted provider behind the proxies."""
    made = Provider()
    await made.start(PROVIDER_PORT)
    yield made
    await made.stop()


def test_detection(both: Proxies) -> None:
    """The proxy is an OpenAI-compatible server like any other."""
    gateway = both.gateways["chat"]
    assert [(row["model"], row["lane"], row["state"]) for row in gateway.table] == [(NAME, "chat", "healthy")] * 2
    lines = [line for line in gateway.lines if f"OpenAI-compatible server, serves {NAME}, chat lane" in line]
    assert len(lines) == 2, gateway.lines


@pytest.mark.parametrize("stream", [True, False])
def test_greedy_with_logprobs(both: Proxies, servers: Servers, stream: bool) -> None:
    """Text, logprobs, finish reason and usage are those of the vLLM behind the proxy."""
    question = asked(STORY, stream=stream, **LOGPROBS)
    servers.ask_directly(question)  # so that the prompt is in vLLM's cache for all
    own, answer = servers.ask_directly(question), both.ask("chat", question)
    assert answer.complete, answer.events
    assert content(answer) == content(own)


@pytest.mark.parametrize("stream", [True, False])
def test_text_completions(both: Proxies, servers: Servers, stream: bool) -> None:
    """A text completion has the text and the usage of the vLLM behind the proxy."""
    question = Question(path="/v1/completions", prompt="One, two,", temperature=0.0, seed=None, stream=stream)
    own, answer = servers.ask_directly(question), both.ask("chat", question)
    assert answer.complete, answer.events
    assert content(answer) == content(own)


def test_forced_calls(both: Proxies) -> None:
    """A forced call of a function is one. The proxy drops `strict`, so vLLM's arguments need not follow the schema."""
    question = asked(STORY, prompt="How is the weather in Paris?", max_tokens=80, tools=[WEATHER])
    answer = both.ask("chat", asked(question, tool_choice={"type": "function", "function": {"name": "weather"}}))
    assert answer.complete, answer.events
    (call,) = answer.choices[0].calls.values()
    assert call.name == "weather"
    assert json.loads(call.arguments)


def test_more_tokens_than_the_context(both: Proxies) -> None:
    """A limit that vLLM refuses behind the proxy is bounded, and a header says so."""
    answer = both.ask("chat", asked(STORY, max_tokens=5000, stop=["lighthouse"]))
    assert answer.complete, answer.events
    assert answer.headers["x-max-tokens-bounded"]
    assert both.states("chat") == {"healthy"}


def test_json_schema(both: Proxies) -> None:
    """An answer follows a strict JSON schema."""
    answer = both.ask("chat", asked(STORY, prompt="Plan a trip.", max_tokens=60, **FORM))
    assert json.loads(answer.choices[0].text).keys() == {"city", "days"}, answer.events


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"temperature": 7}, "temperature", None),
        ({"prompt": "word " * 1200}, None, "context_length_exceeded"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "no"}}}},
            None,
            None,
        ),
    ],
    ids=["temperature", "prompt", "schema"],
)
def test_refused(both: Proxies, more: dict[str, Any], param: str | None, code: str | None, stream: bool) -> None:
    """What vLLM refuses behind the proxy is the client's mistake, and does not count against the proxies."""
    answer = both.ask("chat", asked(STORY, **more, stream=stream))
    (error,) = answer.errors
    assert answer.status == 400, answer.events
    assert param is None or param in f"{error['param']} {error['message']}"
    assert code is None or error["code"] == code
    assert both.states("chat") == {"healthy"}


ERRORS: list[tuple[Script, type[SubnetError]]] = [
    (error_response(401, "Incorrect API key provided.", type="invalid_request_error"), Unauthorized),
    (error_response(404, "The model does not exist", code="model_not_found"), NotFound),
    (error_response(400, "'stop' must be a string", param="stop"), InvalidRequest),
    (error_response(400, "This model's maximum context length is 16 tokens."), ContextLengthExceeded),
    (error_response(400, "Rejected as a result of our safety system."), ContentRefused),
    (error_response(429, "Rate limit reached", retry_after=7), RateLimited),
    (error_response(500, "The server had an error"), NodeError),
    (error_response(503, "The engine is overloaded", retry_after=3), NodeBusy),
    (connection_reset(), NodeError),
    (error_event(3, {"message": "boom", "code": 500}), NodeError),
    (error_event(0, {"message": "overloaded", "code": 529}), NodeBusy),
    (cut_off(3), NodeError),
    (malformed(3), NodeError),
]


@pytest.mark.parametrize(("script", "error"), ERRORS)
async def test_errors(both: Proxies, provider: Provider, script: Script, error: type[SubnetError]) -> None:
    """What the proxy makes of an error of its backend, before the answer and within it, is that error still."""
    provider.set_scripts(script)
    async with node(both.first.url, api_key=KEY) as protocol:
        with pytest.raises(error) as caught:
            await chat(protocol, model=SCRIPTED)
    assert type(caught.value) is error or error is NodeError
    assert not isinstance(caught.value, InvalidRequest) or caught.value.param == "stop"


async def test_its_own_errors(both: Proxies) -> None:
    """A wrong key, and a model that the proxy does not have, are failures of the node's settings, not the client's."""
    async with node(both.first.url, api_key="sk-wrong") as protocol:
        with pytest.raises(Unauthorized):
            await chat(protocol, model=NAME)
    async with node(both.first.url, api_key=KEY) as protocol:
        with pytest.raises(NotFound):
            await chat(protocol, model="nobody's")


async def test_what_it_hides(both: Proxies, provider: Provider) -> None:
    """An answer that its backend ends in the middle without an error is a finished one at the proxy."""
    for script, text in ((answer(), TEXT), (truncated(3), "One two three")):
        provider.set_scripts(script)
        async with node(both.first.url, api_key=KEY) as protocol:
            result = await chat(protocol, model=SCRIPTED)
        assert (result.text(), result.finishes()) == (text, ["stop"])


QUESTIONS = {
    "seeded": asked(WHOLE, temperature=1.0, seed=5),
    "unseeded": asked(WHOLE, temperature=1.0),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_proxy_is_killed(both: Proxies, name: str) -> None:
    """The other proxy repeats what was sent and goes on."""
    answer = both.ask_and_kill("chat", QUESTIONS[name], CUT)
    assert answer.complete, answer.events
    assert answer.switched == 1
    assert answer.usages[0]["completion_tokens"] == WHOLE.max_tokens


def test_the_backend_is_killed(both: Proxies, servers: Servers) -> None:
    """The proxy reports the death of its backend in the stream, and the other proxy goes on to the same answer."""
    whole = both.ask("chat", WHOLE)
    answer = both.ask_and_kill("chat", WHOLE, CUT, servers.first)
    assert answer.complete, answer.events
    assert answer.switched == 1
    assert answer.choices[0].text == whole.choices[0].text
