"""Small conversations that show what a chat template can do."""

from __future__ import annotations

from typing import Any

TEXT = "\ufdd0"
NAME = "probed_function"

QUESTION = {"role": "user", "content": "x"}
SYSTEM = {"role": "system", "content": TEXT}

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "x",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "string", "description": "x"}},
            "required": ["x"],
        },
    },
}


RESULT = "probed_result"
CALL: list[dict[str, Any]] = [
    QUESTION,
    {
        "role": "assistant",
        "content": "",
        # Mistral's templates want ids of nine letters and digits.
        "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": NAME, "arguments": {"x": "y"}}}],
    },
    {"role": "tool", "content": RESULT, "tool_call_id": "call00001", "name": NAME},
]
