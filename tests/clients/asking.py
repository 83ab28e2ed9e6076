"""Requests that all client tests send."""

from __future__ import annotations

from typing import Any

from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, Field

MODEL = "SmolLM2-135M-Instruct"
QUESTION = "Name three colours."
MESSAGES = [{"role": "user", "content": QUESTION}]


class Town(BaseModel):
    """A place where people live."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Z][a-z]{2,11}$")
    size: int = Field(ge=1, le=999)


def ask(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": MESSAGES, "max_tokens": 16, "seed": 5, "temperature": 0, **more}


def joined(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
