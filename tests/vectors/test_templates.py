"""The gateway with all chat templates of llama.cpp and vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapter.generation.model_format import UNKNOWN as FORMAT_UNKNOWN
from tests.vectors.known_differences import NO_CHAT, UNKNOWN, check
from tests.vectors.templates import format_of, id_of, load, template_paths

PATHS = template_paths()
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "How are you?"},
]


@pytest.mark.parametrize("path", PATHS, ids=id_of)
def test_a_plain_chat(path: Path) -> None:
    """Every template renders a chat, with a system message where it has that role."""
    if id_of(path) in NO_CHAT:
        pytest.skip(NO_CHAT[id_of(path)])
    messages = CHAT if load(path).features.renders_system else CHAT[1:]
    text = load(path).render(messages)
    assert "How are you?" in text


def test_formats_of_calls() -> None:
    """At least 90 % of the templates with tools read back what they write, and none of the others is guessed."""
    with_tools = [path for path in PATHS if load(path).supports_tools]
    unknown = {id_of(path) for path in with_tools if format_of(path).tools == FORMAT_UNKNOWN}
    known = len(with_tools) - len(unknown)
    print(f"{known} of {len(with_tools)} templates with tools read back what they write")
    assert known >= 0.9 * len(with_tools)
    check(unknown, UNKNOWN)
