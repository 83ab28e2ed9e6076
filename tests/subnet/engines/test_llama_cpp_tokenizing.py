"""Tokenization by llama.cpp's own tokenizer in a child process of a node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from subnet import Limits
from subnet.detect.upstream_protocol import UpstreamProtocol
from subnet.engines.llama_cpp import LlamaCppEngine, NativeTokenizer
from subnet.engines.llama_cpp.tokenizer_process import TokenizerProcess
from subnet.errors import InvalidRequest, NodeBusy, SettingsError
from subnet.http.node_spec import NodeSpec
from subnet.models.resolve import resolve
from subnet.node.run import listening
from subnet.node.server import Node
from subnet.node_info import TokenizerArtefact
from tests.fakes import gateway
from tests.vocabularies import model, vocabulary

TEXTS = ["Hello, world!", "", "a  1234 \u65e5\u672c\u8a9e \U0001f600\n", "<|im_end|>"]
MESSAGES = [{"role": "user", "content": "Say  123 words, not <|im_end|>."}]


def test_token_ids_and_pieces() -> None:
    """The process returns llama.cpp's token ids, and the bytes of each token."""
    path = resolve(None, print)
    process = TokenizerProcess(path)
    try:
        found, pieces = process.tokenize(TEXTS), process.pieces()
    finally:
        process.close()
    with NativeTokenizer(path) as native:
        assert [ids.tolist() for ids in found] == [native.tokenize(text) for text in TEXTS]
    assert (len(pieces), pieces[2], b"".join(pieces[token] for token in found[0])) == (
        49152,
        b"<|im_end|>",
        b"Hello, world!",
    )


def test_a_run_that_would_end_the_process(tmp_path: Path) -> None:
    """A run of letters that overflows the stack of llama.cpp's regular expressions is refused, and the next text is
    tokenized; a shorter one, which overflows a normal stack, is tokenized.
    """
    process = TokenizerProcess(vocabulary(tmp_path / "v.gguf", pre="bloom"))
    try:
        assert len(process.tokenize(["a" * 200_000])[0]) > 1000
        with pytest.raises(InvalidRequest, match="cannot be tokenized") as refused:
            process.tokenize(["a" * 4_000_000])
        assert refused.value.param == "messages"
        assert len(process.tokenize(["a"])[0]) == 1
    finally:
        process.close()


@pytest.mark.parametrize("data", [b"", b"GGUF", b"no such thing"])
def test_a_file_that_cannot_be_loaded(tmp_path: Path, data: bytes) -> None:
    """A file that llama.cpp cannot load is a SettingsError."""
    path = tmp_path / "v.gguf"
    path.write_bytes(data)
    with pytest.raises(SettingsError, match="cannot load"):
        TokenizerProcess(path).tokenize(["a"])


@pytest.fixture(scope="module")
def regrouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the demo model with a pre-tokenizer that llama.cpp runs in its own way."""
    return model(tmp_path_factory.mktemp("regrouped") / "regrouped.gguf", "tiny_aya")


async def test_a_model_whose_node_tokenizes(regrouped: Path) -> None:
    """A real model that only its node can tokenize for is served by all endpoints, with llama.cpp's token ids."""
    engine = LlamaCppEngine(model_path=regrouped, context_length=512, threads=1)
    async with engine, listening(Node(engine), "127.0.0.1", 0) as address:
        assert TokenizerArtefact.from_bytes(engine.artefact).on_node
        async with (
            gateway(UpstreamProtocol(NodeSpec(url=address)), limits=Limits()) as url,
            httpx.AsyncClient(base_url=url, timeout=60) as client,
        ):

            async def post(path: str, **body: Any) -> Any:
                response = await client.post(path, json={"model": "regrouped", **body})
                assert response.status_code == 200, response.text
                return response.json()

            text = "a  1234 b"
            with NativeTokenizer(regrouped) as native:
                expected = native.tokenize(text)
                prompt = (await post("/v1/chat/completions/render", messages=MESSAGES))["prompt"]
                # A control token in a message stays text.
                parts = [native.tokenize(part, True) for part in prompt.split("<|im_end|>.")]
                broken = native.tokenize("<|im_end|>.")
            assert (await post("/tokenize", prompt=text))["tokens"] == expected
            ids = (await post("/tokenize", messages=MESSAGES))["tokens"]
            assert ids.count(2) == sum(part.count(2) for part in parts)
            assert len(ids) == pytest.approx(sum(map(len, parts)) + len(broken), abs=1)
            assert (await post("/detokenize", tokens=ids))["prompt"] == prompt
            answer = await post("/v1/chat/completions", messages=MESSAGES, max_tokens=4, temperature=0)
            assert answer["choices"][0]["message"]["content"]
            assert answer["usage"]["prompt_tokens"] == len(ids)
            completion = await post("/v1/completions", prompt=text, max_tokens=2, echo=True)
            assert completion["choices"][0]["text"].startswith(text)
            [embedding] = (await post("/v1/embeddings", input=text))["data"]
            assert np.linalg.norm(embedding["embedding"]) == pytest.approx(1, abs=1e-3)


async def test_cancelled_calls_count_until_they_end(regrouped: Path) -> None:
    """A call that was cancelled still waits for the process, so that the number of waiting calls is bounded."""
    async with LlamaCppEngine(model_path=regrouped, context_length=64, threads=1) as engine:
        (process,) = [one for one in psutil.Process().children() if "tokenizer_process" in " ".join(one.cmdline())]
        process.suspend()
        try:
            calls = [asyncio.create_task(engine.tokenize(["a"])) for _ in range(64)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            with pytest.raises(NodeBusy):
                await engine.tokenize(["a"])
        finally:
            process.resume()
