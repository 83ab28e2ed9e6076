"""Chat templates of the sources, and the formats that the gateway finds for them."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from adapter.generation.model_format import FoundFormat, find_format
from adapter.prompt import ChatTemplate
from subnet.errors import InvalidRequest
from tests.vectors.set_up import FOLDER

# Templates come without vocabularies. These are texts of control tokens in those of the models.
_CONTROL = re.compile(
    r"<\|[^<>|\s]+\|?>|<[^<>|\s]+\|>|<\uff5c[^<>\uff5c]+\uff5c>|</?s>|<SPECIAL_\d+>|\[/?[A-Z_]+\]"
    r"|<(?:start|end)_of_turn>|<(?:start|end)_function_(?:call|response|declaration)>|<escape>"
)

_TOOLS = [{"type": "function", "function": {"name": "f", "description": "f", "parameters": {"type": "object"}}}]
_CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {}}}],
    },
]


def template_paths() -> list[Path]:
    """Return the files of all templates."""
    folders = (FOLDER / "llama.cpp" / "models" / "templates", FOLDER / "vllm" / "examples")
    return [path for folder in folders for path in sorted(folder.rglob("*.jinja"))]


def id_of(path: Path) -> str:
    """Return a short name of a template."""
    return str(path.relative_to(FOLDER)).replace("models/templates/", "")


@cache
def load(path: Path) -> ChatTemplate:
    """Compile a template."""
    return ChatTemplate(path.read_text(encoding="utf-8"), "<s>", "</s>")


@cache
def control_texts(path: Path) -> frozenset[str]:
    """Return the texts of control tokens that a template writes: those in its source, and those that it composes."""
    written = load(path).source
    with suppress(InvalidRequest):
        written += load(path).render(_CALLED, tools=_TOOLS)
    return frozenset(_CONTROL.findall(written)) | {"<s>", "</s>"}


@cache
def format_of(path: Path) -> FoundFormat:
    """Return the format that the gateway finds for a template."""
    return find_format(load(path), control=control_texts(path))
