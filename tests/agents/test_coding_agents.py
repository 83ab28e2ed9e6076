"""Coding agents without a terminal: each reads a file by a tool and answers. Claude Code speaks Anthropic's dialect,
and the others chat completions.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.agents.running import NODE, run
from tests.scripted_model import MODEL, ScriptedModel, call, serving, turns

QUESTION = "What is the secret word?"
NOTES = "The secret word is heron.\n"
LAST = "The secret word is heron, as the notes say."
Agent = Callable[[str, Path], Awaitable[str]]
MODULES = NODE / "node_modules"


async def opencode(url: str, folder: Path) -> str:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "gateway",
        "options": {"baseURL": url},
        "models": {MODEL: {"name": MODEL}},
    }
    settings = {"provider": {"gateway": provider}, "model": f"gateway/{MODEL}", "autoupdate": False}
    (folder / "opencode.json").write_text(json.dumps(settings))
    environ = {f"OPENCODE_DISABLE_{name}": "1" for name in ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD")}
    program = MODULES / "opencode-linux-x64-baseline" / "bin" / "opencode"
    return await run([program, "run", QUESTION], folder, environ)


async def pi(url: str, folder: Path) -> str:
    provider = {"baseUrl": url, "api": "openai-completions", "apiKey": "any", "models": [{"id": MODEL}]}
    settings = folder / ".pi" / "agent" / "models.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"providers": {"gateway": provider}}))
    options = ["--provider", "gateway", "--model", MODEL, "--offline", "--print", QUESTION]
    return await run([MODULES / ".bin" / "pi", *options], folder)


async def qwen_code(url: str, folder: Path) -> str:
    connection = ["--auth-type", "openai", "--openai-api-key", "any", "--openai-base-url", url, "--model", MODEL]
    return await run([MODULES / ".bin" / "qwen", *connection, "--yolo", "--prompt", QUESTION], folder)


async def claude_code(url: str, folder: Path) -> str:
    environ = {
        "ANTHROPIC_BASE_URL": url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": "any",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    program = MODULES / "@anthropic-ai" / "claude-code-linux-x64" / "claude"
    return await run([program, "--print", QUESTION, "--model", MODEL, "--allowedTools", "Read"], folder, environ)


@pytest.mark.parametrize(
    ("agent", "tool", "argument"),
    [
        (opencode, "read", "filePath"),
        (pi, "read", "path"),
        (qwen_code, "read_file", "file_path"),
        (claude_code, "Read", "file_path"),
    ],
    ids=["opencode", "pi", "qwen-code", "claude-code"],
)
async def test_a_file_is_read(agent: Agent, tool: str, argument: str, tmp_path: Path) -> None:
    """An agent reads a file by a tool, sends it back and prints the answer, though each answer is lost halfway."""
    notes = tmp_path / "notes.txt"
    notes.write_text(NOTES)
    model = ScriptedModel(turns(call(tool, **{argument: str(notes)}), LAST), failing=True)
    async with serving(model) as url:
        output = await agent(url, tmp_path)
    assert model.lost >= 2
    assert LAST in output
    result = model.prompts[-1].partition("<tool_response>\n")[2]
    assert NOTES.strip() in result
