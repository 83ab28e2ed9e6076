"""pydantic-ai against real processes and a real model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput, RunContext, ToolOutput
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from tests.clients.asking import MODEL, QUESTION, Town

SETTINGS = ModelSettings(max_tokens=48, temperature=0, seed=1, parallel_tool_calls=False)


@pytest.fixture
async def model(real: str) -> AsyncIterator[OpenAIChatModel]:
    async with AsyncOpenAI(base_url=real + "/v1", api_key="any", max_retries=0) as client:
        yield OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client), settings=SETTINGS)


async def test_text(model: OpenAIChatModel) -> None:
    """A pydantic-ai agent's answer and usage are the same streamed and not."""
    agent = Agent(model, model_settings=ModelSettings(max_tokens=12))
    whole = await agent.run(QUESTION)
    async with agent.run_stream(QUESTION) as stream:
        assert await stream.get_output() == whole.output
        assert stream.usage.total_tokens == whole.usage.total_tokens


@pytest.mark.parametrize("output", [NativeOutput(Town, strict=True), ToolOutput(Town, strict=True)])
async def test_output_type(model: OpenAIChatModel, output: NativeOutput[Town] | ToolOutput[Town]) -> None:
    """A pydantic-ai agent returns an object of its output class, by JSON schema and by tool call."""
    assert isinstance((await Agent(model, output_type=output).run("Name a town.")).output, Town)


async def test_tool(model: OpenAIChatModel) -> None:
    """A pydantic-ai agent calls a tool or its output tool with valid arguments."""
    agent = Agent(model, output_type=ToolOutput(Town, strict=True))
    asked: list[int] = []

    async def once(_: RunContext[object], tool: ToolDefinition) -> ToolDefinition | None:
        return None if asked else tool

    @agent.tool_plain(strict=True, prepare=once)
    def neighbours(distance: int) -> str:
        """Towns that are near."""
        asked.append(distance)
        return "There is Oslo."

    result = await agent.run("Which towns are near?")
    assert isinstance(result.output, Town)
    called = [part for message in result.new_messages() for part in message.parts if isinstance(part, ToolCallPart)]
    assert len(called) == 1 + len(asked)
