"""The openai package for Node.js against real processes and a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.node.conftest import Script
from tests.faults.programs import gateway
from tests.relay import Relay

MODEL = "SmolLM2-135M-Instruct"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    """Run a gateway with the API key "right", whose only node is unreachable."""
    with gateway([NOWHERE], ["--api-key", "right", "--queue-timeout", "0.5"]) as made:
        yield made.url + "/v1"


@pytest.fixture(scope="module")
def found(script: Script, relay: Relay, locked: str) -> Any:
    return script("openai.mjs", relay.url + "/v1", locked)


def test_models(found: Any) -> None:
    """The openai package for Node.js lists the model."""
    assert found["models"] == [MODEL]


def test_stream_equals_whole_answer(found: Any) -> None:
    """A stream has one id, one usage at its end, the request id, and the text of the whole answer."""
    chunks, whole = found["streamed"]["chunks"], found["whole"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk["usage"]] == [40]
    assert whole["usage"]["completion_tokens"] == 40
    assert found["streamed"]["request_id"].startswith("req_")
    assert found["streamed"]["type"].startswith("text/event-stream")


def test_the_streaming_helper(found: Any) -> None:
    """The streaming helper assembles the text, logprobs and usage of the whole answer."""
    helper, whole = found["helper"], found["whole"]
    text = whole["choices"][0]["message"]["content"]
    assert helper["deltas"] == helper["choice"]["message"]["content"] == text
    assert "".join(each["token"] for each in helper["choice"]["logprobs"]["content"]) == text
    assert helper["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


def test_a_forced_call_is_streamed(found: Any) -> None:
    """A streamed call has one id and name, and its fragments add up to arguments that match the strict schema."""
    choice = found["streamedCall"]["choice"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert call["id"].count("call_") == 1
    fragments = found["streamedCall"]["fragments"]
    assert len(fragments) > 2
    assert "".join(fragments) == call["function"]["arguments"]
    fits(json.loads(call["function"]["arguments"]))


def test_tools_are_run(found: Any) -> None:
    """The helper that runs tools calls the function with valid arguments, and returns its result."""
    (arguments,) = found["toolsRun"]["called"]
    fits(arguments)
    assert found["toolsRun"]["result"] == "sunny"


def fits(arguments: dict[str, Any]) -> None:
    assert set(arguments) == {"city", "days"}
    assert len(arguments["city"]) <= 12
    assert 1 <= arguments["days"] <= 7


def test_structured_output(found: Any) -> None:
    """With a Zod type as output format, the answer is of that type."""
    cat = found["parsed"]["parsed"]
    assert set(cat) == {"name", "age"}
    assert isinstance(cat["age"], int)
    assert json.loads(found["parsed"]["content"]) == cat


def test_a_stream_that_is_aborted(found: Any) -> None:
    """A stream that the client aborts ends without an error."""
    assert found["left"] == 3


@pytest.mark.parametrize(
    ("request_", "name", "status", "code", "param"),
    [
        ("model", "NotFoundError", 404, "model_not_found", "model"),
        ("range", "BadRequestError", 400, "invalid_value", "temperature"),
        ("long", "BadRequestError", 400, "context_length_exceeded", "messages"),
        ("streamed", "BadRequestError", 400, "missing_required_parameter", "messages[0].content[0].text"),
        ("key", "AuthenticationError", 401, "invalid_api_key", None),
        ("nodes", "InternalServerError", 503, "no_node_available", "model"),
    ],
)
def test_errors_are_typed(request_: str, name: str, status: int, code: str, param: str | None, found: Any) -> None:
    """Errors are typed, with OpenAI's code and parameter, also for a stream."""
    error = found["errors"][request_]
    assert (error["name"], error["status"]) == (name, status)
    assert (error["code"], error["param"]) == (code, param)
    assert error["requestID"].startswith("req_")
