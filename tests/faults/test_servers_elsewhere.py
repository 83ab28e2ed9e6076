"""llama-server behind the gateway, on both lanes, killed in the middle of an answer."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import pytest

from subnet.http.node_spec import Kind
from tests.faults.answers import Answer
from tests.faults.asking import Question, ask
from tests.faults.conftest import Record
from tests.faults.programs import Gateway, gateway
from tests.llama_server import llama_server
from tests.processes import Running, until

# Lane, and the configured type that selects it; None: detected.
LANES: dict[str, Kind | None] = {"token": None, "chat": "openai"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FORM = {"response_format": {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True}}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
FORCED_CALL = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
# Settings of a server on the chat lane, by its type: llama-server repeats itself, which a plain server is told to do.
NODES = {
    "llama-server": '[[nodes]]\nurl = "%s"\nkind = "llama-server"\nlane = "chat"\n',
    "a plain server": '[[nodes]]\nurl = "%s"\nkind = "openai"\nseeds = true\n',
}
QUESTIONS = {
    "greedy": Question(prompt="Tell me a story.", temperature=0.0, seed=None),
    "with a seed": Question(prompt="Tell me a story."),
    "not streamed": Question(prompt="Tell me a story.", stream=False),
    "JSON schema": Question(prompt="Plan a trip.", max_tokens=48, temperature=0.0, more=FORM),
}
CALLING = Question(prompt="How is the weather in Paris?", max_tokens=64, temperature=0.0, more=FORCED_CALL)
COMPLETIONS = "/v1/completions"
TEXTS = {
    "greedy": Question(path=COMPLETIONS, prompt="Once upon a time", temperature=0.0, seed=None),
    "with a seed": Question(path=COMPLETIONS, prompt="Once upon a time"),
    "logprobs": Question(
        path=COMPLETIONS, prompt="Once upon a time", temperature=0.0, max_tokens=80, more={"logprobs": 2}
    ),
    "two prompts": Question(
        path=COMPLETIONS, prompt="", temperature=0.0, more={"prompt": ["Once upon a time", "In the end,"]}
    ),
    "token ids": Question(path=COMPLETIONS, prompt="", more={"prompt": [6403, 253, 655]}),
}
INPUTS = {"input": ["Once upon a time", "In the end,"]}


class Two:
    """Two servers and a gateway in front; a killed server is restarted at its address. `config` is a file for the
    settings of the nodes, each `node`.
    """

    def __init__(
        self,
        stack: ExitStack,
        kind: Kind | None,
        config: Path | None = None,
        node: str = "",
        *,
        embeddings: bool = False,
    ) -> None:
        self._stack = stack
        self.servers = [stack.enter_context(llama_server(slots=1, embeddings=embeddings)) for _ in range(2)]
        flags: tuple[str, ...] = ("--policy", "sticky")
        addresses = [one.url for one in self.servers]
        if config is not None:
            config.write_text("".join(node % address for address in addresses))
            flags, addresses = (*flags, "--config", str(config)), []
        self.gateway: Gateway = stack.enter_context(gateway(addresses, flags, kind))
        until(self.well)

    def well(self) -> bool:
        # After three kills of a server its breaker waits for a trial request.
        return {row["state"] for row in self.gateway.table} <= {"healthy", "breaker-half-open"}

    def ask(self, question: Question, kill_after: int | None = None) -> Answer:
        """Send a question; with `kill_after`, the server that answers is killed after this number of pieces of text."""

        def on_text(pieces: int) -> None:
            if pieces == kill_after:
                self._kill()

        name = str(self.gateway.table[0]["model"])
        fields = {field: getattr(question, field) for field in question.__struct_fields__}
        return ask(self.gateway.url, Question(**{**fields, "model": name}), on_text)

    def _kill(self) -> None:
        busy, *_ = (row["peer"] for row in self.gateway.table if row["requests"])
        (server,) = (one for one in self.servers if busy.startswith(one.url))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()

    def mend(self) -> None:
        for index, server in enumerate(self.servers):
            if server.process.poll() is not None:
                self.servers[index] = self._again(server)
        until(self.well)

    def _again(self, server: Running) -> Running:
        port = int(server.url.rpartition(":")[2])
        return self._stack.enter_context(llama_server(slots=1, port=port))


@pytest.fixture(scope="module", params=LANES)
def lane(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def two(lane: str) -> Iterator[Two]:
    with ExitStack() as stack:
        yield Two(stack, LANES[lane])


def check_form(feature: str, answer: Answer) -> None:
    """Check that the answer is in the form that the request forces."""
    choice = answer.choices[0]
    if feature == "JSON schema":
        assert json.loads(choice.text).keys() == {"city", "days"}
    if feature == "tools":
        assert [(call.name, [*json.loads(call.arguments)]) for call in choice.calls.values()] == [("weather", ["city"])]
        assert choice.reasons == ["tool_calls"]


@pytest.fixture(scope="module")
def two_on_the_chat_lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Two servers that are known to be of the type llama-server."""
    with ExitStack() as stack:
        yield Two(stack, None, tmp_path_factory.mktemp("config") / "adapter.toml", NODES["llama-server"])


def test_detected_servers(two: Two, lane: str) -> None:
    """The gateway reports the type of each server and the lane it uses."""
    assert [row["lane"] for row in two.gateway.table] == [lane, lane]
    lines = [line for line in two.gateway.lines if f"{lane} lane" in line]
    assert len(lines) == 2
    assert all(("llama-server" in line) == (lane == "token") for line in lines)


@pytest.mark.parametrize("feature", QUESTIONS)
def test_killed(two: Two, lane: str, feature: str, record_property: Record) -> None:
    """If the llama-server of an answer is killed, the client gets the same text, one finish reason and one usage."""
    check_killed(two, lane, feature, QUESTIONS[feature], record_property)


@pytest.mark.parametrize("lane", ["token"], indirect=True)
def test_killed_in_a_tool_call(two: Two, lane: str, record_property: Record) -> None:
    """A forced call goes on where it was cut. On the chat lane, llama-server does not force calls of this model."""
    check_killed(two, lane, "tools", CALLING, record_property)


def check_killed(two: Two, lane: str, feature: str, question: Question, record_property: Record) -> None:
    undisturbed = two.ask(question)
    assert undisturbed.complete, undisturbed.events
    check_form(feature, undisturbed)
    if not question.stream:
        return
    answer = two.ask(question, kill_after=4)
    two.mend()
    same = answer.complete and answer.choices == undisturbed.choices
    counted = [usage["completion_tokens"] for usage in (*answer.usages, *undisturbed.usages)]
    says = "same" if same and counted[0] == counted[1] else "another"
    column = "with a seed" if feature == "with a seed" else "greedy"
    row = f"killed, llama-server on the {lane} lane" + (f": {feature}" if feature in ("JSON schema", "tools") else "")
    record_property("cell", (row, column, says))
    assert same
    assert counted[0] == counted[1]
    assert answer.switched == 1


@pytest.mark.parametrize("kind", NODES)
def test_unseeded_answers_on_the_chat_lane(tmp_path: Path, kind: str) -> None:
    """An answer without a seed, sampled or greedy, streamed as text or JSON, survives the kill of its server, which had
    a seed of the gateway's own.
    """
    with ExitStack() as stack:
        two = Two(stack, None, tmp_path / "adapter.toml", NODES[kind])
        assert [row["lane"] for row in two.gateway.table] == ["chat", "chat"]
        for feature, question in QUESTIONS.items():
            if not question.stream:
                continue
            # A sampled text could end before the kill.
            more = question.more if feature == "JSON schema" else {"ignore_eos": True}
            unseeded = msgspec.structs.replace(question, seed=None, temperature=1.0, more=more)
            for asked in (question, unseeded):
                answer = two.ask(asked, kill_after=4)
                two.mend()
                assert answer.complete, (feature, answer.events)
                assert answer.switched == 1
                assert answer.usages[-1]["completion_tokens"] > 4
                check_form(feature, answer)


@pytest.mark.parametrize("feature", TEXTS)
def test_text_completion_killed(two_on_the_chat_lane: Two, feature: str) -> None:
    """A text completion survives the kill of its llama-server: the same text, logprobs, finish reasons and usage."""
    two, question = two_on_the_chat_lane, TEXTS[feature]
    undisturbed = two.ask(question)
    assert undisturbed.complete, undisturbed.events
    whole = two.ask(msgspec.structs.replace(question, stream=False))
    # By index: the parts of several prompts arrive in any order.
    assert texts_of(whole) == texts_of(undisturbed)
    answer = two.ask(question, kill_after=4)
    two.mend()
    assert answer.complete, answer.events
    assert logprobs_of(answer) == logprobs_of(undisturbed)
    assert answer.choices == undisturbed.choices
    assert answer.usages[0]["completion_tokens"] == undisturbed.usages[0]["completion_tokens"]
    assert answer.switched >= 1


def texts_of(answer: Answer) -> dict[int, str]:
    return {index: choice.text for index, choice in answer.choices.items()}


def logprobs_of(answer: Answer) -> dict[str, list[object]]:
    """Return the logprobs of a stream with one choice, assembled from its parts, and rounded."""
    found: dict[str, list[object]] = {}
    for event in answer.events[:-1]:
        for choice in event["choices"]:
            for name, values in (choice["logprobs"] or {}).items():
                found.setdefault(name, []).extend(values if name != "top_logprobs" else map(sorted, values))
    found["token_logprobs"] = [round(float(str(value)), 3) for value in found.get("token_logprobs", ())]
    return found


def test_unseeded_text_completion_killed(two_on_the_chat_lane: Two) -> None:
    """A text completion without a seed survives the kill of its llama-server."""
    two = two_on_the_chat_lane
    question = msgspec.structs.replace(TEXTS["with a seed"], seed=None, max_tokens=80, more={"ignore_eos": True})
    answer = two.ask(question, kill_after=4)
    two.mend()
    assert answer.complete, answer.events
    assert answer.usages[0]["completion_tokens"] == 80
    assert answer.switched == 1


def test_embeddings_elsewhere(tmp_path: Path) -> None:
    """Embeddings of llama-server on the chat lane are the same after one of two servers was killed."""
    with ExitStack() as stack:
        two = Two(stack, None, tmp_path / "adapter.toml", NODES["llama-server"], embeddings=True)
        with httpx.Client(base_url=two.gateway.url, timeout=60) as http:
            body = INPUTS | {"model": str(two.gateway.table[0]["model"])}
            before = http.post("/v1/embeddings", json=body).json()
            two.servers[0].process.kill()
            two.servers[0].process.wait()
            for _ in range(4):
                after = http.post("/v1/embeddings", json=body)
                assert after.status_code == 200, after.text
                assert after.json() == before
            packed = http.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
            long = http.post("/v1/embeddings", json=body | {"input": "x " * 900}).json()
        assert [one["index"] for one in before["data"]] == [0, 1]
        assert all(isinstance(one["embedding"], str) for one in packed["data"])
        assert (before["model"], before["usage"]["prompt_tokens"]) == (body["model"], 8)
        assert long["error"]["code"] == "context_length_exceeded"
