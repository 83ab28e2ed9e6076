"""Models on the Hugging Face hub, downloaded by the real client, in a separate process, from a hub on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import Hub, environment, serving
from tests.pretrained import folder_of

ASK = """
from subnet.errors import SettingsError
from subnet.models.pretrained import describe_pretrained
try:
    card, artefact = describe_pretrained("tiny/model")
except SettingsError as error:
    print("error:", error.message)
else:
    print(card.id, card.context_length, card.tokenizer)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    config = {"max_position_embeddings": 512}
    folder = folder_of(tmp_path / "model", tokenizer_config={"eos_token": "<|end|>"}, config=config)
    (folder / "model.safetensors").write_bytes(b"large")
    with serving(folder) as server:
        yield server


def ask(endpoint: str, home: Path) -> str:
    command, environ = [sys.executable, "-c", ASK], os.environ | environment(endpoint, home)
    completed = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return completed.stdout


def test_weights_are_not_downloaded(hub: Hub, tmp_path: Path) -> None:
    """Describing a model on the hub reports one line and downloads every file but the weights."""
    first, card = ask(hub.address, tmp_path / "home").splitlines()
    assert first == "downloading tiny/model (cached files are reused)"
    assert card.startswith("tiny/model 512 ")
    assert set(hub.downloaded) == {"tokenizer.json", "tokenizer_config.json", "config.json"}


def test_an_unreachable_hub_raises_a_one_line_error(hub: Hub, tmp_path: Path) -> None:
    """An unreachable hub raises an error of one line, unless the files are cached."""
    home, nowhere = tmp_path / "home", "http://127.0.0.1:9"
    known = ask(hub.address, home)
    assert ask(nowhere, home) == known
    lines = ask(nowhere, tmp_path / "empty").splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("error: tiny/model cannot be downloaded: ")
