"""Encoders in a child process."""

from __future__ import annotations

import asyncio
import gc
import resource
from itertools import product

import msgspec
import psutil
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from adapter.prompt import load_tokenizer
from subnet.errors import InvalidRequest, NodeError, SettingsError
from subnet.models.encoder_process import ProcessEncoder
from subnet.models.encoders import load_encoder
from subnet.node_info import TokenizerArtefact
from subnet.protocols.mock import BYTE_LEVEL

BYTES = TokenizerArtefact.from_bytes(BYTE_LEVEL)
TEXTS = ["Hello, world!", "", "a  1234 \u65e5\u672c \U0001f600\n", "<|end|>"]


def children() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children() if any("encoder_process" in part for part in child.cmdline())
    ]


def large_json() -> TokenizerArtefact:
    """Return an artefact whose tokenizer.json has 90,000 merges."""
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 300)]
    pairs = list(product(letters, letters))
    texts = [*letters, *(one + other for one, other in pairs)]
    made = Tokenizer(models.BPE({text: token for token, text in enumerate(texts)}, pairs))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return TokenizerArtefact(pieces=[text.encode() for text in texts], control=[], tokenizer_json=made.to_str())


def test_token_ids() -> None:
    """The ids are those of an encoder in this process. The child ends with the encoder."""
    encoder, local = ProcessEncoder(BYTES), load_encoder(BYTES)
    assert [ids.tolist() for ids in encoder.encode_all(TEXTS)] == [local.encode(text).tolist() for text in TEXTS]
    assert encoder.encode("").tolist() == []
    (child,) = children()
    del encoder
    gc.collect()
    child.wait(10)


def test_a_child_that_ended_is_replaced() -> None:
    """If the child is killed between two texts, the next one is encoded by a new child."""
    encoder = ProcessEncoder(BYTES)
    (child,) = children()
    child.kill()
    child.wait(10)
    assert encoder.encode("a").tolist() == [97]


def test_a_text_during_which_the_child_fails() -> None:
    """It is refused, and the next one is encoded."""
    encoder = ProcessEncoder(BYTES, timeout=2)
    (child,) = children()
    child.suspend()
    with pytest.raises(InvalidRequest, match="cannot be tokenized"):
        encoder.encode("a")
    assert encoder.encode("a").tolist() == [97]


def test_a_child_that_cannot_be_started() -> None:
    """A lack of file descriptors is not blamed on the text."""
    encoder = ProcessEncoder(BYTES)
    (child,) = children()
    child.kill()
    child.wait(10)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(NodeError, match="cannot start a process"):
            encoder.encode("a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert encoder.encode("a").tolist() == [97]


def test_a_text_that_cannot_be_encoded() -> None:
    """An error of the encoder in the child is that of the text."""
    encoder = ProcessEncoder(msgspec.structs.replace(BYTES, pattern=""))
    with pytest.raises(InvalidRequest, match="cannot be tokenized") as refused:
        encoder.encode("a")
    assert refused.value.param == "messages"


@pytest.mark.parametrize("changes", [{"pattern": "("}, {"merges": None}, {"merges": [10**6]}])
def test_an_invalid_artefact(changes: dict[str, object]) -> None:
    """The error of loading it is reported, and no child is left."""
    before = children()
    with pytest.raises(SettingsError, match="invalid tokenizer"):
        ProcessEncoder(msgspec.structs.replace(BYTES, **changes))
    assert set(children()) <= set(before)


async def test_loading_does_not_block_the_event_loop() -> None:
    """While a large tokenizer.json is loaded and encodes a long text, the event loop goes on."""
    artefact, turns = large_json(), 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    counter = asyncio.create_task(count())
    tokenizer = await asyncio.to_thread(load_tokenizer, artefact)
    # In this process it is about ten.
    assert turns > 50
    assert tokenizer.waits
    assert (await asyncio.to_thread(tokenizer.encode_text, "\u4e00\u4e01")).tolist() == [301]
    counter.cancel()


def test_large_merges_are_loaded_apart_if_busy() -> None:
    """A tokenizer with many merges, which holds the GIL while it loads, is loaded here only if nothing else runs."""
    pieces = [*BYTES.pieces, *(b"%06d" % number for number in range(70_000))]
    large = msgspec.structs.replace(BYTES, pieces=pieces, merges=[*(BYTES.merges or []), *range(257, len(pieces))])
    assert not load_tokenizer(large).waits
    assert load_tokenizer(large, busy=True).waits
    assert not load_tokenizer(BYTES, busy=True).waits
