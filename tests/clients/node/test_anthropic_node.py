"""The anthropic package for Node.js against real processes and a real model."""

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
        yield made.url


@pytest.fixture(scope="module")
def found(script: Script, relay: Relay, locked: str) -> Any:
    return script("anthropic.mjs", relay.url, locked)


def test_the_streaming_helper(found: Any) -> None:
    """The streaming helper puts together the message that is not streamed; its tokens are counted alike."""
    helper, whole = found["helper"], found["whole"]
    text = whole["content"][0]["text"]
    assert helper["deltas"] == helper["message"]["content"][0]["text"] == text
    assert helper["blocks"] == whole["content"]
    assert helper["message"]["stop_reason"] == whole["stop_reason"]
    assert helper["message"]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    usage = whole["usage"]
    assert found["counted"]["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_a_forced_call_is_streamed(found: Any) -> None:
    """The fragments of a streamed call add up to an input that matches the strict schema."""
    streamed = found["streamedCall"]
    (block,) = streamed["message"]["content"]
    assert (block["type"], streamed["message"]["stop_reason"]) == ("tool_use", "tool_use")
    assert json.loads("".join(streamed["fragments"])) == block["input"]
    assert block["input"].keys() == {"city", "days"}


def test_models_and_errors(found: Any) -> None:
    """The model is listed, and errors raise the classes that clients expect, with Anthropic's types."""
    assert found["models"] == [MODEL]
    errors = {name: (error["name"], error["status"], error["type"]) for name, error in found["errors"].items()}
    assert errors == {
        "key": ("AuthenticationError", 401, "authentication_error"),
        "nodes": ("ServiceUnavailableError", 503, "overloaded_error"),
        "model": ("NotFoundError", 404, "not_found_error"),
        "value": ("BadRequestError", 400, "invalid_request_error"),
    }
    assert all(error["request_id"].startswith("req_") for error in found["errors"].values())
