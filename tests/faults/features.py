"""Questions that use features beyond plain text, for tests in which nodes fail."""

from __future__ import annotations

from typing import Any

from tests.faults.asking import Question


def tool(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": closed(properties)}}


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has exactly these properties."""
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def feature(prompt: str = "go", *, max_tokens: int | None = 24, stream: bool = True, **more: Any) -> Question:
    """Return a question; all of them have the same `user`, so that they go to the same node."""
    more["user"] = "one"
    return Question(model="thinking", prompt=prompt, max_tokens=max_tokens, stream=stream, more=more)


LOGPROBS: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
TOOLS = [tool("look", {}), tool("listen", {})]
FEATURES = {
    "logprobs, token ids": feature(**LOGPROBS, return_token_ids=True),
    "n = 2, logprobs": feature(n=2, **LOGPROBS, max_tokens=12),
    "penalties": feature(frequency_penalty=1.2, presence_penalty=0.6, repetition_penalty=1.1, logit_bias={"300": 2}),
    "reasoning, tool calls": feature("Think.", max_tokens=None, tools=TOOLS),
    "the same with logprobs": feature("Think.", max_tokens=None, tools=TOOLS, **LOGPROBS),
    "the same, n = 2, not streamed": feature("Think.", max_tokens=None, tools=TOOLS, n=2, **LOGPROBS, stream=False),
}

CITY = {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}
WEATHER = "How is the weather in Paris?"
FORM = {"type": "json_schema", "json_schema": {"name": "trip", "strict": True, "schema": closed(CITY)}}
CLOSE: dict[str, Any] = {"tools": [tool("weather", CITY)], "parallel_tool_calls": False}
PHRASE = "(Paris|Rome|Oslo): [a-z ]{24,40}[.]"
REAL = {
    "forced call": feature(WEATHER, max_tokens=60, **CLOSE, tool_choice="required", **LOGPROBS),
    "JSON schema": feature(WEATHER, max_tokens=60, response_format=FORM),
    "regular expression": feature(WEATHER, max_tokens=60, structured_outputs={"regex": PHRASE}),
}
"""Questions for the real model, whose output is forced."""
