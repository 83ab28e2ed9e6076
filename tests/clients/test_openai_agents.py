"""OpenAI's Agents SDK in the mode of chat completions, with a scripted model."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from tests.scripted_model import ScriptedModel, call, serving, turns

QUIET = RunConfig(tracing_disabled=True)


class Town(BaseModel):
    """A town."""

    name: str
    size: Annotated[int, Field(ge=1)]


@function_tool
def weather(town: str, days: int = 3, unit: str | None = None) -> str:
    """The weather of the next days in a town."""
    return f"{days} days of rain in {town}, in {unit or 'celsius'}"


@function_tool(strict_mode=False)
def tag(labels: dict[str, int]) -> str:
    """Set labels."""
    return f"set {labels}"


def agent_at(client: AsyncOpenAI, **more: Any) -> Agent[None]:
    return Agent(name="helper", model=OpenAIChatCompletionsModel("mock", client), tools=[weather, tag], **more)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", [None, "required", "weather"])
async def test_a_run_with_a_default_argument(choice: Any, stream: bool) -> None:
    """A strict tool with default arguments is called, its result is sent back, and the run ends with text."""
    model = ScriptedModel(turns(call("weather", town="Oslo", days=2, unit=None), "It will rain."))
    settings = ModelSettings(tool_choice=choice, parallel_tool_calls=False)
    async with serving(model) as url, AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        agent = agent_at(client, instructions="Be short.", model_settings=settings)
        if stream:
            run = Runner.run_streamed(agent, "How is the weather in Oslo?", run_config=QUIET)
            async for _ in run.stream_events():
                pass
            output = run.final_output
        else:
            output = (await Runner.run(agent, "How is the weather in Oslo?", run_config=QUIET)).final_output
    assert output == "It will rain."
    assert "2 days of rain in Oslo, in celsius" in model.prompts[-1]


async def test_a_tool_that_is_not_strict() -> None:
    """A tool with a map as argument, which cannot be strict, is called."""
    model = ScriptedModel(turns(call("tag", labels={"a": 1}), "Done."))
    async with serving(model) as url, AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        output = (await Runner.run(agent_at(client), "Set a.", run_config=QUIET)).final_output
    assert output == "Done."
    assert "set {'a': 1}" in model.prompts[-1]


async def test_an_output_type_after_a_tool() -> None:
    """With an output type and tools in one request, the run ends with an object of the type."""
    model = ScriptedModel(turns(call("weather", town="Oslo", days=3, unit=None), '{"name": "Oslo", "size": 700000}'))
    async with serving(model) as url, AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        found = await Runner.run(agent_at(client, output_type=Town), "Which town?", run_config=QUIET)
    assert found.final_output == Town(name="Oslo", size=700_000)


async def test_a_handoff() -> None:
    """A handoff to another agent, which is a tool without arguments, is followed."""
    model = ScriptedModel(turns(call("transfer_to_expert"), "I am the expert."))
    async with serving(model) as url, AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        expert = Agent[None](name="expert", model=OpenAIChatCompletionsModel("mock", client), tools=[weather])
        found = await Runner.run(agent_at(client, handoffs=[expert]), "Ask an expert.", run_config=QUIET)
    assert found.final_output == "I am the expert."
    assert found.last_agent is expert
