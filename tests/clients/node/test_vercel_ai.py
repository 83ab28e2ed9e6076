"""Vercel's AI SDK against real processes and a real model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.node.conftest import Script
from tests.relay import Relay


@pytest.fixture(scope="module")
def found(script: Script, relay: Relay) -> Any:
    return script("ai.mjs", relay.url + "/v1")


def test_stream_equals_whole_answer(found: Any) -> None:
    """Text, finish reason and usage are the same streamed and not, and a stream has several pieces."""
    pieces = found["streamed"].pop("pieces")
    assert found["streamed"] == found["whole"]
    assert len(pieces) > 2
    assert "".join(pieces) == found["whole"]["text"]
    inputs, outputs, total = found["whole"]["tokens"]
    assert (outputs, total) == (40, inputs + 40)
    assert found["whole"]["finishReason"] == "length"


@pytest.mark.parametrize("how", ["called", "streamedCall"])
def test_a_forced_tool_is_run(how: str, found: Any) -> None:
    """A forced tool is called with valid arguments, streamed and not."""
    (result,) = found[how]["results"]
    assert set(result["input"]) == {"city", "days"}
    assert 1 <= result["input"]["days"] <= 7
    assert result["output"] == f"sunny in {result['input']['city']}"
    assert found[how]["finishReason"] == "tool-calls"


def test_arguments_come_in_fragments(found: Any) -> None:
    """Streamed fragments of a call add up to its arguments."""
    fragments = found["streamedCall"]["fragments"]
    assert len(fragments) > 2
    assert json.loads("".join(fragments)) == found["streamedCall"]["results"][0]["input"]


def test_objects(found: Any) -> None:
    """A generated object is of the requested type; when streamed, each partial object extends the one before."""
    assert set(found["object"]) == {"name", "age"}
    assert 0 <= found["object"]["age"] <= 30
    partial, whole = found["streamedObject"]["partial"], found["streamedObject"]["object"]
    assert whole == partial[-1] == found["object"]
    assert all(whole["name"].startswith(each.get("name", "")) for each in partial)


@pytest.mark.parametrize(
    ("request_", "status", "code", "param"),
    [("model", 404, "model_not_found", "model"), ("range", 400, "invalid_value", "temperature")],
)
def test_errors_are_typed(request_: str, status: int, code: str, param: str, found: Any) -> None:
    """An invalid request raises an API error that is not retryable, with OpenAI's fields."""
    error = found["errors"][request_]
    assert error["typed"]
    assert not error["isRetryable"]
    assert (error["statusCode"], error["code"], error["param"]) == (status, code, param)
