"""LangChain.js and Vercel's AI SDK with schemas of Zod types that are not strict. Every answer is lost halfway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.agents.running import NODE, run_json
from tests.scripted_model import ScriptedModel, call, serving, turns

OWNER: dict[str, Any] = {
    "pet": {"kind": "dog", "name": "Rex"},
    "scores": {"a": 1.5},
    "levels": {"low": 1},
    "contact": None,
}
FRIEND = {**OWNER, "friends": [{"pet": {"kind": "cat"}, "scores": {}, "contact": "a@example.org"}]}


async def test_langchain(tmp_path: Path) -> None:
    """LangChain.js makes calls, sends their results back, streams, and gets objects by calls and by a schema."""
    model = ScriptedModel(turns(call("save", **OWNER), "Rex.", without_tools=json.dumps(OWNER)), failing=True)
    async with serving(model) as url:
        found = await run_json(["node", NODE / "langchain.mjs", url], tmp_path)
    assert model.lost
    assert found["rounds"] == [{"input": OWNER, "output": "saved dog", "text": "Rex."}] * 3
    assert found["streamed"]["pieces"] > 3
    assert found["streamed"]["input"] == found["calling"] == found["schema"] == OWNER


async def test_vercel(tmp_path: Path) -> None:
    """Both providers of Vercel's AI SDK run tools to their end and get objects, streamed and not."""
    model = ScriptedModel(turns(call("save", **FRIEND), "Rex.", without_tools=json.dumps(FRIEND)), failing=True)
    async with serving(model) as url:
        found = await run_json(["node", NODE / "vercel.mjs", url], tmp_path)
    assert model.lost
    assert set(found) == {"openai", "compatible"}
    for provider in found.values():
        for way in ("whole", "streamed", "forced"):
            assert provider[way].pop("tokens") > 1000
            assert provider[way] == {"text": "Rex.", "input": FRIEND, "output": "saved dog"}
        assert provider["object"] == provider["streamedObject"] == FRIEND
