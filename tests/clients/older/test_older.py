"""Clients that need an older `openai` package, in their own virtual environment, against a real model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.asking import MODEL, Town

PYTHON = Path(sys.prefix) / "clients" / "bin" / "python"


def ask(client: str, url: str) -> Any:
    """Run a client's script and return its JSON output."""
    if not PYTHON.exists():
        pytest.skip(f"there is no {PYTHON}: `make test` makes it")
    command = [str(PYTHON), str(Path(__file__).parent / f"{client}_asks.py"), url, MODEL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_instructor(real: str) -> None:
    """instructor returns valid objects by strict tools and by JSON schema, whole and partial."""
    found = ask("instructor", real)
    assert len(found) == 2
    for town in (town for towns in found.values() for town in towns):
        Town.model_validate(town)


def test_litellm(real: str) -> None:
    """litellm gets the same text and usage streamed and not, and maps errors as it maps OpenAI's."""
    found = ask("litellm", real)
    assert found["whole"] == found["streamed"] != ""
    assert found["usage"][0] == found["usage"][1] > 0
    assert found["errors"] == {
        "long": "ContextWindowExceededError",
        "unknown": "NotFoundError",
        "wrong": "BadRequestError",
    }


def test_llama_index(real: str) -> None:
    """LlamaIndex gets the same chats and completions streamed and not, and calls a required tool."""
    found = ask("llama_index", real)
    for whole, streamed in (found["chat"], found["complete"]):
        assert whole.strip() == streamed.strip() != ""
    name, arguments = found["call"]
    assert name == "weather"
    assert isinstance(arguments["days"], int)
