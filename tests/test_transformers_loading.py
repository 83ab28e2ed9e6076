"""What the transformers engine is started with: folders, packages, and the node around it."""

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

WITHOUT = """
import asyncio, sys
sys.modules["transformers"] = None
from subnet.engines.transformers import TransformersEngine
from subnet.errors import SettingsError
try:
    asyncio.run(TransformersEngine("anything").__aenter__())
except SettingsError as error:
    print(error.message)
"""


async def refused(folder: Path, **settings: Any) -> str:
    """What a folder is refused with."""
    with pytest.raises(SettingsError) as caught:
        async with TransformersEngine(folder, threads=1, **settings):
            raise AssertionError("it loaded")
    assert "\n" not in caught.value.message
    return caught.value.message


def test_without_the_packages_it_says_what_to_install() -> None:
    """In one line, when it starts; nothing else of the project needs them."""
    environ = os.environ | {"PYTHONPATH": os.getcwd()}
    told = subprocess.run([sys.executable, "-c", WITHOUT], env=environ, capture_output=True, text=True, timeout=60)
    assert told.stdout.startswith(
        "the transformers engine requires additional packages (pip install '.[transformers]')"
    )
    assert told.stdout.count("\n") == 1


def test_a_node_needs_to_be_told_its_model() -> None:
    """There is no model of this form in the package."""
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


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def more_layers(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))


def unknown_kind(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"nobody"'))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "transformers cannot load a model from "),
        (no_weights, "transformers cannot load a model from "),
        (more_layers, "is incomplete: 9 weights missing, e.g. model.layers.2.input_layernorm.weight"),
        (unknown_kind, "transformers cannot load a model from "),
        (no_config, "transformers cannot load a model from "),
    ],
)
async def test_a_folder_that_is_no_model_is_one_clear_error(
    tiny: Path, damage: Callable[[Path], None], said: str
) -> None:
    """Weights cut short, missing or in part, a kind that the package does not know, no configuration."""
    damage(tiny)
    assert said in await refused(tiny)


async def test_what_cannot_be_served_is_one_clear_error(tiny: Path, tmp_path: Path) -> None:
    """A folder with a tokenizer alone, no folder, a longer context than the model has."""
    assert "transformers cannot load" in await refused(folder_of(tmp_path / "tokenizer"))
    assert "model folder not found" in await refused(tmp_path / "nothing")
    assert "expected 1 to 256" in await refused(tiny, context_length=257)


async def test_a_model_that_does_not_run_is_one_clear_error(tiny: Path) -> None:
    """It has fewer positions than the shortest prompts have tokens: known before anybody asks."""
    assert "was loaded but does not run: " in await refused(tiny_model(tiny, "gpt2", max_position_embeddings=4))


async def test_a_kind_that_remembers_in_another_way_is_refused(tmp_path: Path) -> None:
    """Its state is no cache that an answer could go on from."""
    torch = pytest.importorskip("torch", reason="the extra `transformers` is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
    torch.manual_seed(1)
    config = transformers.MambaConfig(vocab_size=352, hidden_size=32, num_hidden_layers=2, state_size=8)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    assert "MambaForCausalLM is not supported" in await refused(folder_of(tmp_path))


def test_a_model_of_the_hub_is_fetched(tiny: Path, tmp_path: Path) -> None:
    """Its weights too, and nothing else; it is called as it is there."""
    (tiny / "pytorch_model.bin").write_bytes(b"not wanted")
    with serving(tiny) as hub:
        environ = os.environ | environment(hub.address, tmp_path / "home") | {"PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-c", FROM_HUB]
        told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=True)
    assert told.stdout.splitlines()[1:] == ["tiny/model 256"]
    assert "model.safetensors" in hub.asked
    assert "pytorch_model.bin" not in hub.asked


async def test_the_card_says_what_the_package_knows(tiny: Path) -> None:
    """Template, ends and tokens of a chat are those of the package's own tokenizer."""
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
