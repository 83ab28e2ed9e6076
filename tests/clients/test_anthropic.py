"""The anthropic package against real processes and a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import (
    Anthropic,
    APIStatusError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
)
from anthropic.types import Message, TextBlock, ToolUseBlock

from adapter.config import Settings
from subnet.errors import NodeLost
from tests.clients.asking import MODEL, QUESTION
from tests.fakes import gateway, saying
from tests.scripted_model import ScriptedModel, call, serving, turns

WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{2,11}$"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def client(real: str) -> Iterator[Anthropic]:
    with Anthropic(base_url=real, api_key="any", max_retries=0) as client:
        yield client


def ask(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": MODEL, "messages": messages, "max_tokens": 16, "extra_body": {"temperature": 0}, **more}


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


def test_stream_equals_whole_answer(client: Anthropic) -> None:
    """The stream helper puts together the message that is not streamed, whose tokens are counted alike beforehand."""
    whole = client.messages.create(**ask())
    with client.messages.stream(**ask()) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(texts) == text_of(whole) == text_of(final)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 16)
    counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": QUESTION}])
    assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert (whole._request_id or "").startswith("req_")


def test_stop_sequences_do_not_leak(client: Anthropic) -> None:
    """A streamed answer ends before the stop sequence, which the message names."""
    whole = text_of(client.messages.create(**ask()))
    stop = whole[5:12]
    with client.messages.stream(**ask(stop_sequences=[stop])) as stream:
        final = stream.get_final_message()
    assert text_of(final) == whole[: whole.index(stop)]
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", stop)


def test_a_forced_tool(client: Anthropic) -> None:
    """A forced tool of a real model is called with an input that matches its schema, streamed and not."""
    fields = ask(tools=[{**WEATHER, "strict": True}], tool_choice={"type": "tool", "name": "weather"}, max_tokens=60)
    with client.messages.stream(**fields) as stream:
        final = stream.get_final_message()
    for message in (final, client.messages.create(**fields)):
        (block,) = message.content
        assert isinstance(block, ToolUseBlock)
        assert (block.name, message.stop_reason) == ("weather", "tool_use")
        assert isinstance(block.input["city"], str)
        assert block.input["city"].isalpha()


def test_a_last_message_of_the_model_is_continued(client: Anthropic) -> None:
    """The answer is what follows the last message, which it does not repeat."""
    begun = {"role": "assistant", "content": "Red, green and"}
    message = client.messages.create(**ask(messages=[{"role": "user", "content": QUESTION}, begun]))
    assert text_of(message)
    assert not text_of(message).startswith("Red, green and")


def test_an_output_format(client: Anthropic) -> None:
    """The text of a message with an output format matches the schema."""
    schema = {
        "type": "object",
        "properties": {"size": {"type": "integer"}},
        "required": ["size"],
        "additionalProperties": False,
    }
    message = client.messages.create(**ask(output_config={"format": {"type": "json_schema", "schema": schema}}))
    assert json.loads(text_of(message)).keys() == {"size"}


def test_models(client: Anthropic) -> None:
    """The model is listed, and can be retrieved by its id."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).max_input_tokens


def test_errors_are_typed(client: Anthropic) -> None:
    """The package raises its own classes, with the envelope and the request id."""
    with pytest.raises(NotFoundError) as missing:
        client.messages.create(**ask(model="claude-nowhere"))
    assert missing.value.type == "not_found_error"
    assert (missing.value.request_id or "").startswith("req_")
    with pytest.raises(BadRequestError) as wrong:
        client.messages.create(**ask(stop_sequences=[""]))
    assert "'stop_sequences.0'" in wrong.value.message
    with pytest.raises(BadRequestError) as exceeded:
        client.messages.create(**ask(messages=[{"role": "user", "content": "word " * 20_000}]))
    assert "maximum context length" in exceeded.value.message


async def test_errors_of_a_scripted_node() -> None:
    """A wrong key, nodes that fail, and a stream that ends with an error raise the classes that clients expect."""
    settings = Settings(access_log=False, api_keys=("right",))
    fields: Any = {"model": "mock", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    async with gateway(saying("One", NodeLost("gone")), settings=settings) as url:
        async with AsyncAnthropic(base_url=url, api_key="wrong", max_retries=0) as anthropic:
            with pytest.raises(AuthenticationError):
                await anthropic.messages.create(**fields)
        async with AsyncAnthropic(base_url=url, auth_token="right", api_key=None, max_retries=0) as anthropic:
            with pytest.raises(InternalServerError) as failed:
                await anthropic.messages.create(**fields)
            assert (failed.value.status_code, failed.value.type) == (503, "overloaded_error")
            with pytest.raises(APIStatusError) as cut:
                async with anthropic.messages.stream(**fields) as stream:
                    await stream.until_done()
            assert cut.value.type == "overloaded_error"


async def test_an_agent_calls_a_tool() -> None:
    """A turn with thinking, a call and its result, as agents take it: what the package got it can send back."""
    model = ScriptedModel(turns(call("weather", city="Bonn"), "It is sunny."))
    async with serving(model) as url:
        base = url.removesuffix("/v1")
        async with AsyncAnthropic(base_url=base, api_key="any", max_retries=0) as anthropic:
            messages: list[Any] = [{"role": "user", "content": "How is the weather?"}]
            fields: Any = {"model": "mock", "max_tokens": 100, "tools": [WEATHER], "thinking": {"type": "adaptive"}}
            async with anthropic.messages.stream(messages=messages, **fields) as stream:
                first = await stream.get_final_message()
            (block,) = first.content
            assert isinstance(block, ToolUseBlock)
            assert (block.input, first.stop_reason) == ({"city": "Bonn"}, "tool_use")
            result = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
            messages += [first.to_param(), {"role": "user", "content": [result]}]
            last = await anthropic.messages.create(messages=messages, **fields)
    assert text_of(last) == "It is sunny."
    assert "sunny" in model.prompts[-1]
