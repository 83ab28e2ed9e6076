"""Answers of each kind, sent back by each client, with all chat templates of llama.cpp and vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapter.prompt.render import render_conversation
from tests.adapter.prompt.test_prompt_tools import TOKENIZER
from tests.taken_back import CLIENTS, Json, conversation, read_on_token_lane
from tests.vectors.known_differences import NO_CHAT
from tests.vectors.templates import id_of, load, template_paths

PATHS = template_paths()
TOOLS: dict[str, Any] = {
    "get_weather": {"type": "object", "properties": {"city": {"type": "string"}}},
    "get_time": None,
}
PARIS, ID = '{"city": "Paris"}', "call_" + 24 * "0"
ARGUMENTS = ["", "{broken", "[1]", '"x"', "null", '{"a": "\\ud83d"}', '{"a": 1e999}', '{"a": {"b": null}}']


def calling(*calls: tuple[str, str], **fields: Any) -> Json:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": f"{ID}{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(calls)
        ],
        **fields,
    }


MESSAGES: list[Json] = [
    {"role": "assistant", "content": "Hi"},
    {"role": "assistant", "content": ""},
    {"role": "assistant", "content": None},
    {"role": "assistant", "content": None, "refusal": "No."},
    {"role": "assistant", "content": None, "reasoning_content": "So."},
    {"role": "assistant", "content": "Hi", "reasoning_content": "So."},
    calling(("get_weather", PARIS)),
    calling(("get_weather", PARIS), content="I look."),
    calling(("get_weather", PARIS), content="I look.", reasoning_content="So."),
    calling(("get_weather", PARIS), ("get_time", "{}")),
    *(calling(("get_weather", arguments)) for arguments in ARGUMENTS),
]


@pytest.mark.parametrize("path", [path for path in PATHS if id_of(path) not in NO_CHAT], ids=id_of)
def test_answers_are_taken_back(path: Path) -> None:
    """Every template renders each answer, with calls of our own ids to tools without descriptions."""
    template = load(path)
    for message in MESSAGES:
        for client in CLIENTS:
            messages = conversation(client(message))
            prompt = render_conversation(read_on_token_lane(messages, TOOLS), template, TOKENIZER.guard)
            assert "And now?" in prompt.text
