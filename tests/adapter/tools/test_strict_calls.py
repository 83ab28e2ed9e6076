"""Strict tools with a real model: its calls match the schema, and no call is forced."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from adapter.prompt import ChatTemplate
from adapter.tools import select_format
from subnet.engines.llama_cpp import LlamaCppEngine
from subnet.generation import Grammar
from tests.adapter.tools.test_parsers import Message, message
from tests.real_engine import ids_of, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

KIND = select_format("", "hermes")
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["c", "f"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def example(city: str) -> list[dict[str, str]]:
    """Return an example of a call that violates the schema, for the model to imitate."""
    call = f'<tool_call>\n{{"name": "get_weather", "arguments": {{"town": "{city}"}}}}\n</tool_call>'
    return [said("user", f"Weather in {city}?"), said("assistant", call)]


async def ask(
    engine: LlamaCppEngine, pieces: list[bytes], messages: list[dict[str, str]], seeds: int
) -> list[tuple[Message, bool]]:
    """Return the parsed answer for each seed, and whether it ended by itself."""
    template = ChatTemplate(engine.card.chat_template or "")
    prompt = ids_of(template.render(messages))
    text = KIND.free_grammar({"get_weather": CITY}, True, {})
    assert text is not None
    asked = [run(engine, prompt, seed=seed, grammar=Grammar("lark", text), max_tokens=48) for seed in range(seeds)]
    answers = []
    for tokens, deltas in await asyncio.gather(*asked):
        parser = KIND.parser({"get_weather": CITY})
        assert parser is not None
        parts = parser.decode(b"".join(pieces[token] for token in tokens).decode(errors="replace")) + parser.flush()
        answers.append((message(parts), deltas[-1].finish_reason == "stop"))
    return answers


async def test_calls_match_their_schema(engine: LlamaCppEngine, pieces: list[bytes]) -> None:
    """With any seed, complete calls to a strict tool have the arguments that the schema requires."""
    messages = [*example("Rome"), *example("London"), *example("Berlin"), said("user", "Weather in Paris?")]
    answers = await ask(engine, pieces, messages, 10)
    ended = [call for answer, whole in answers if whole for call in answer.calls]
    assert ended
    for name, arguments in ended:
        found = json.loads(arguments)
        assert name == "get_weather"
        assert found.keys() == {"city", "unit"}
        assert len(found["city"]) <= 12
        assert found["unit"] in ("c", "f")


async def test_plain_answers(engine: LlamaCppEngine, pieces: list[bytes]) -> None:
    """With a strict tool the model may still answer without a call."""
    answers = await ask(engine, pieces, [said("user", "Say hello.")], 3)
    assert any(answer.content and not answer.calls for answer, _ in answers)
