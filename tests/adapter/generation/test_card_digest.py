"""Digests of cards: equal for all sources of one model, different for whatever changes a prompt or an end."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from adapter.config import ModelSpec, Settings
from adapter.generation.model_registry import ModelRegistry
from subnet import MockProtocol, RemoteManager
from subnet.models.card import describe
from subnet.models.gguf import read_metadata
from subnet.models.patterns import PATTERNS
from subnet.models.pretrained import describe_pretrained
from subnet.models.resolve import resolve
from subnet.models.vocabulary import CONTROL, USER_DEFINED, Vocabulary
from subnet.node_info import ModelCard, digest
from subnet.protocols.mock import BYTE_LEVEL
from tests.fakes import ASK, gateway, saying
from tests.pretrained import END, START, byte_level, folder_of

TEMPLATE = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"


def digest_of(described: tuple[ModelCard, bytes]) -> str:
    card, artefact = described
    node = MockProtocol(artefact=artefact)

    async def read() -> str:
        async with RemoteManager([node]) as manager:
            await manager.ready()
            return await ModelRegistry(manager).digest(card)

    return asyncio.run(read())


@cache
def gguf() -> Path:
    return resolve(None, print)


def pretrained_copy(folder: Path) -> Path:
    """Write the description of the packaged GGUF file's model in Hugging Face format."""
    metadata = read_metadata(gguf())
    vocabulary = Vocabulary.from_metadata(metadata)
    ids = {text: token for token, text in enumerate(vocabulary.texts)}
    merges = [tuple(merge.decode().split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[metadata["tokenizer.ggml.pre"]]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([vocabulary.texts[token] for token in vocabulary.of_type(CONTROL)])
    tokenizer.add_tokens(
        [AddedToken(vocabulary.texts[token], normalized=False) for token in vocabulary.of_type(USER_DEFINED)]
    )
    config: dict[str, Any] = {
        "chat_template": metadata["tokenizer.chat_template"],
        "bos_token": vocabulary.texts[metadata["tokenizer.ggml.bos_token_id"]],
        "eos_token": vocabulary.texts[metadata["tokenizer.ggml.eos_token_id"]],
    }
    return folder_of(folder, tokenizer, tokenizer_config=config)


def test_a_gguf_file_and_a_folder_of_one_model(tmp_path: Path) -> None:
    """Their artefacts differ, but they do the same."""
    first, second = describe(gguf()), describe_pretrained(pretrained_copy(tmp_path / "model"))
    assert first[0].tokenizer != second[0].tokenizer
    assert digest_of(first) == digest_of(second)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {"chat_template": TEMPLATE, "eos_token": END}
    return folder_of(tmp_path / "model", tokenizer_config=config)


@pytest.mark.parametrize(
    "changed",
    [
        {"chat_template": TEMPLATE + " "},
        {"chat_template": TEMPLATE + "{% if add_generation_prompt %}<|start|>assistant{% endif %}"},
        {"chat_template": "{{ raise_exception('no') }}"},
        {"chat_template": None},
        {"eos_token": START},
        {"bos_token": START, "add_bos_token": True},
    ],
)
def test_whatever_changes_a_prompt_changes_the_digest(tmp_path: Path, folder: Path, changed: dict[str, Any]) -> None:
    config = {"chat_template": TEMPLATE, "eos_token": END} | changed
    other = folder_of(tmp_path / "other", tokenizer_config=config)
    assert digest_of(describe_pretrained(folder)) != digest_of(describe_pretrained(other))


def test_another_tokenizer_changes_the_digest(tmp_path: Path, folder: Path) -> None:
    config = {"chat_template": TEMPLATE, "eos_token": END}
    other = folder_of(tmp_path / "other", byte_level(300), tokenizer_config=config)
    assert digest_of(describe_pretrained(folder)) != digest_of(describe_pretrained(other))


def test_what_does_not_change_a_prompt_does_not_change_the_digest(tmp_path: Path, folder: Path) -> None:
    """The name, the context length and a template that is written differently but renders the same have no effect."""
    config = {"chat_template": "{# a comment #}" + TEMPLATE + "\n", "eos_token": END, "bos_token": "<unused>"}
    other = folder_of(tmp_path / "other", tokenizer_config=config, config={"max_position_embeddings": 100})
    assert digest_of(describe_pretrained(folder)) == digest_of(describe_pretrained(other, "another name"))


def test_a_template_that_writes_the_date(tmp_path: Path) -> None:
    """The digest is the same on every day: the layout of the date is compared instead."""
    by_layout = {}
    for layout in ("%d %b %Y", "%f"):
        config = {"chat_template": "{{ strftime_now('" + layout + "') }}" + TEMPLATE, "eos_token": END}
        described = describe_pretrained(folder_of(tmp_path / layout[-1], tokenizer_config=config))
        by_layout[layout] = {digest_of(described) for _ in range(3)}
    first, second = by_layout.values()
    assert len(first) == len(second) == 1
    assert first != second


async def test_the_digest_is_shown_and_can_be_expected() -> None:
    """`GET /nodes` has the digest of each deployment; with another one expected, the node gets no requests."""
    card = ModelCard(id="mock", context_length=1, tokenizer=digest(BYTE_LEVEL))
    found = await asyncio.to_thread(digest_of, (card, BYTE_LEVEL))
    for expected, status in ((found, 200), ("0" * 16, 503)):
        settings = Settings(access_log=False, models={"mock": ModelSpec(card=expected)})
        async with gateway(saying("Hi"), settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
            assert await card_shown(client) == found
            assert (await client.post("/v1/chat/completions", json=ASK)).status_code == status


async def card_shown(client: httpx.AsyncClient) -> str:
    """Wait until the only node's card was read, and return its digest."""
    async with asyncio.timeout(5):
        while True:
            (row,) = (await client.get("/nodes")).json()["nodes"]
            if (card := row["deployments"][0]["card"]) is not None:
                return str(card)
