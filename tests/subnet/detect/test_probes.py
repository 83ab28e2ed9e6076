"""Detection of a model's format of tool calls and reasoning, and the setting that overrides it."""

from __future__ import annotations

import pytest

from adapter.generation.model_registry import LoadedTokenizer
from adapter.tools import ModelFormat
from subnet.node_info import ModelCard, digest
from subnet.protocols.mock import BYTE_LEVEL
from tests.adapter.prompt.test_prompt_tools import CHATML, KNOWS_TOOLS

MARKS = "{# <|python_tag|> <think> #}"
CHANNELS = "{# <|channel|> <|message|> #}"


def kind(template: str, tool_format: str | None = None) -> ModelFormat:
    card = ModelCard(id="m", context_length=8, tokenizer=digest(BYTE_LEVEL), chat_template=template)
    return LoadedTokenizer(card, BYTE_LEVEL, tool_format).format


@pytest.mark.parametrize(
    ("template", "tool_format", "calls", "tags"),
    [
        (KNOWS_TOOLS + MARKS, None, "llama3_json", "think"),
        (CHATML + MARKS, None, "hermes", "think"),
        (CHATML + CHANNELS, None, "harmony", None),
        (CHATML + MARKS, "glm", "glm", "think"),
        (CHATML + MARKS, "glm/none", "glm", None),
        (KNOWS_TOOLS, "none/seed", None, "seed"),
    ],
)
def test_formats(template: str, tool_format: str | None, calls: str | None, tags: str | None) -> None:
    """The format is detected from the template, is hermes if the template ignores tools, or is the configured one."""
    detected = kind(template, tool_format)
    assert (detected.tool_format.name if detected.tool_format else None) == calls
    assert (detected.tags.name if detected.tags else None) == tags
