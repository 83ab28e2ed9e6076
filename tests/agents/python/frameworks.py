"""Script that runs agents of smolagents and Haystack with one tool, and prints their last answers as a JSON object."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool as haystack_tool
from haystack.utils import Secret
from smolagents import OpenAIModel, ToolCallingAgent, tool

QUESTION = "How is the weather in Oslo?"


@tool  # type: ignore[untyped-decorator]
def weather(town: str, days: int = 3) -> str:
    """The weather of the next days in a town.

    Args:
        town: its name
        days: their number
    """
    return f"{days} days of rain in {town}"


@haystack_tool(name="weather")  # type: ignore[untyped-decorator]
def weather_of(town: Annotated[str, "its name"], days: Annotated[int, "their number"] = 3) -> str:
    """The weather of the next days in a town."""
    return f"{days} days of rain in {town}"


def smolagents(url: str, stream: bool) -> str:
    model = OpenAIModel(model_id="mock", api_base=url, api_key="any")
    agent = ToolCallingAgent(tools=[weather], model=model, stream_outputs=stream, verbosity_level=0, max_steps=3)
    return str(agent.run(QUESTION))


def haystack(url: str, stream: bool) -> str:
    generator = OpenAIChatGenerator(
        Secret.from_token("any"),
        "mock",
        api_base_url=url,
        streaming_callback=(lambda chunk: None) if stream else None,
        tools_strict=stream,
    )
    found = Agent(chat_generator=generator, tools=[weather_of]).run([ChatMessage.from_user(QUESTION)])
    return str(found["messages"][-1].text)


def main(name: str, url: str) -> None:
    run = {"smolagents": smolagents, "haystack": haystack}[name]
    # smolagents leaves a line open.
    print("\n" + json.dumps([run(url, stream) for stream in (False, True)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
