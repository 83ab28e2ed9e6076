"""langchain-openai against real processes and a real model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.clients.asking import MODEL, Town


@pytest.fixture
def model(real: str) -> ChatOpenAI:
    settings: dict[str, Any] = {"max_tokens": 48, "temperature": 0, "seed": 1, "stream_usage": True}
    return ChatOpenAI(base_url=real + "/v1", api_key="any", model=MODEL, **settings)  # type: ignore[arg-type]


@tool
def weather(town: str, days: int) -> str:
    """The weather of the next days in a town."""
    return f"{days} days of rain in {town}"


def sum_of(pieces: Sequence[BaseMessage]) -> AIMessageChunk:
    added = AIMessageChunk(content="")
    for piece in pieces:
        assert isinstance(piece, AIMessageChunk)
        added = added + piece
    return added


def test_text(model: ChatOpenAI) -> None:
    """LangChain's invoke, stream and batch return the same text."""
    model = model.model_copy(update={"max_tokens": 12})
    whole = model.invoke("Name an animal.")
    assert whole.content
    assert whole.usage_metadata is not None
    assert "".join(str(chunk.content) for chunk in model.stream("Name an animal.")) == whole.content
    assert [answer.content for answer in model.batch(["Name an animal."] * 2)] == [whole.content] * 2


async def test_text_async(model: ChatOpenAI) -> None:
    """LangChain's astream yields an answer in several pieces."""
    pieces = [str(chunk.content) async for chunk in model.astream("Name an animal.")]
    assert len([piece for piece in pieces if piece]) > 3


def test_usage_of_a_stream(model: ChatOpenAI) -> None:
    """LangChain's streamed chunks add up to the usage and finish reason of the whole answer."""
    model = model.model_copy(update={"max_tokens": 12})
    whole = model.invoke("Name an animal.")
    added = sum_of(list(model.stream("Name an animal.")))
    assert added.usage_metadata is not None
    assert whole.usage_metadata is not None
    assert added.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"]
    assert added.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]


def test_tools(model: ChatOpenAI) -> None:
    """A forced call from LangChain has valid arguments, and its result can be sent back."""
    bound = model.bind_tools([weather], tool_choice="weather", strict=True, parallel_tool_calls=False)
    asked = bound.invoke("How is the weather in Oslo?")
    (call,) = asked.tool_calls
    assert call["name"] == "weather"
    result = weather.invoke(call)
    assert "rain in" in result.content
    conversation = [("user", "How is the weather in Oslo?"), asked, result]
    assert model.bind(max_tokens=8).invoke(conversation).content


def test_stream_of_a_tool_call(model: ChatOpenAI) -> None:
    """LangChain's streamed chunks add up to the same tool call as without streaming."""
    bound = model.bind_tools([weather], tool_choice="any", strict=True, parallel_tool_calls=False)
    (whole,) = bound.invoke("How is the weather in Oslo?").tool_calls
    pieces = list(bound.stream("How is the weather in Oslo?"))
    assert len(pieces) > 3
    (call,) = sum_of(pieces).tool_calls
    assert (call["name"], call["args"]) == (whole["name"], whole["args"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(model: ChatOpenAI, method: Any) -> None:
    """LangChain's structured output is an object of the class, by JSON schema and by function calling."""
    town = model.with_structured_output(Town, method=method, strict=True).invoke("Name a town.")
    assert isinstance(town, Town)
