"""Start of the transformers engine: missing packages, model folders, and models on the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapter.prompt import ChatTemplate, load_tokenizer
from subnet.engines.transformers import TransformersEngine
from subnet.errors import SettingsError
from subnet.node.run import make_engine
from subnet.node.settings import NodeSettings
from subnet.node_info import TokenizerArtefact
from tests.hub import environment, serving
from tests.pretrained import folder_of
from tests.tiny_model import tiny_model

WITHOUT_PACKAGES = """
import asyncio, sys
sys.modules["transformers"] = None
from subnet.engines.transformers import TransformersEngine
from subnet.errors import SettingsError
try:
    asyncio.run(TransformersEngine("anything").__aenter__())
except SettingsError as error:
    print(error.message)
"""


async def rejection(folder: Path, **settings: Any) -> str:
    """Return the message that a folder is rejected with."""
    with pytest.raises(SettingsError) as caught:
        async with TransformersEngine(folder, threads=1, **settings):
            raise AssertionError("it loaded")
    assert "\n" not in caught.value.message
    return caught.value.message


def test_missing_packages_are_reported() -> None:
    """A missing package is reported in one line that says what to install."""
    environ = os.environ | {"PYTHONPATH": os.getcwd()}
    completed = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGES], env=environ, capture_output=True, text=True, timeout=60
    )
    assert completed.stdout.startswith(
        "the transformers engine requires additional packages (pip install '.[transformers]')"
    )
    assert completed.stdout.count("\n") == 1


def test_the_model_must_be_set() -> None:
    """The transformers engine has no default model: a node without --model raises SettingsError."""
    with pytest.raises(SettingsError, match="needs --model"):
        make_engine(NodeSettings(engine="transformers"), print)


FROM_HUB = """
import asyncio
from subnet.engines.transformers import TransformersEngine
async def main():
    async with TransformersEngine("tiny/model", threads=1) as engine:
        print(engine.card.id, engine.card.context_length)
asyncio.run(main())
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    pytest.importorskip("torch", reason="the extra `transformers` is not installed")
    pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
    return tiny_model(tmp_path / "tiny")


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def add_layer(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))


def set_unknown_architecture(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"unknown"'))


def remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_weights, "transformers cannot load a model from "),
        (remove_weights, "transformers cannot load a model from "),
        (add_layer, "is incomplete: 9 weights missing, e.g. model.layers.2.input_layernorm.weight"),
        (set_unknown_architecture, "transformers cannot load a model from "),
        (remove_config, "transformers cannot load a model from "),
    ],
)
async def test_an_incomplete_model_is_rejected(tiny: Path, damage: Callable[[Path], None], message: str) -> None:
    """Missing, truncated or partial weights, an unknown architecture and a missing configuration are rejected."""
    damage(tiny)
    assert message in await rejection(tiny)


async def test_unusable_settings_are_rejected(tiny: Path, tmp_path: Path) -> None:
    """A folder without a model, a missing folder and a context length above the model's are rejected."""
    assert "transformers cannot load" in await rejection(folder_of(tmp_path / "tokenizer"))
    assert "model folder not found" in await rejection(tmp_path / "nothing")
    assert "expected 1 to 256" in await rejection(tiny, context_length=257)


async def test_a_model_that_does_not_run_is_rejected(tiny: Path) -> None:
    """A model that loads but fails in its first forward pass is rejected at start."""
    assert "was loaded but does not run: " in await rejection(tiny_model(tiny, "gpt2", max_position_embeddings=4))


async def test_a_model_without_a_key_value_cache_is_rejected(tmp_path: Path) -> None:
    """A model with recurrent state instead of a key-value cache is rejected."""
    torch = pytest.importorskip("torch", reason="the extra `transformers` is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
    torch.manual_seed(1)
    config = transformers.MambaConfig(vocab_size=352, hidden_size=32, num_hidden_layers=2, state_size=8)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    assert "MambaForCausalLM is not supported" in await rejection(folder_of(tmp_path))


def test_a_model_on_the_hub_is_downloaded(tiny: Path, tmp_path: Path) -> None:
    """A model on the hub is downloaded with its safetensors weights only, and served under its hub name."""
    (tiny / "pytorch_model.bin").write_bytes(b"not wanted")
    with serving(tiny) as hub:
        environ = os.environ | environment(hub.address, tmp_path / "home") | {"PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-c", FROM_HUB]
        completed = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=True)
    assert completed.stdout.splitlines()[1:] == ["tiny/model 256"]
    assert "model.safetensors" in hub.downloaded
    assert "pytorch_model.bin" not in hub.downloaded


async def test_the_card_equals_the_packages_tokenizer(tiny: Path) -> None:
    """The card's template, stop tokens and token ids equal those of the package's own tokenizer."""
    from transformers import AutoTokenizer

    known = AutoTokenizer.from_pretrained(tiny)
    async with TransformersEngine(tiny, context_length=99, threads=1) as engine:
        card, artefact = engine.card, TokenizerArtefact.from_bytes(engine.artefact)
    assert (card.id, card.context_length, card.stop_tokens) == ("tiny", 99, (known.eos_token_id,))
    assert (card.bos_token, card.eos_token, card.chat_template) == (
        known.bos_token,
        known.eos_token,
        known.chat_template,
    )
    messages = [{"role": "user", "content": "the cat sat"}, {"role": "assistant", "content": "on the mat"}]
    text = ChatTemplate(card.chat_template or "", card.bos_token, card.eos_token).render(messages)
    ids = known.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert load_tokenizer(artefact).encode_prompt(text).tolist() == ids
