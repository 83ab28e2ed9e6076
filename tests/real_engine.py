"""llama.cpp engine with the demo model, on one thread, and helpers to run it. conftest.py registers the fixtures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from subnet.engines.base import Engine
from subnet.engines.llama_cpp import LlamaCppEngine, NativeTokenizer
from subnet.generation import Delta, Job, Sampling, Start
from subnet.models.resolve import resolve
from subnet.node_info import TokenizerArtefact
from subnet.tensors import TokenIds, token_ids

CONTEXT = 512
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


def make_engine(**settings: Any) -> LlamaCppEngine:
    return LlamaCppEngine(model_path=resolve(None, print), context_length=CONTEXT, threads=1, **settings)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[LlamaCppEngine]:
    async with make_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def pieces(engine: LlamaCppEngine) -> list[bytes]:
    """Return the bytes of each token."""
    return TokenizerArtefact.from_bytes(engine.artefact).pieces


def ids_of(text: str) -> TokenIds:
    with NativeTokenizer(resolve(None, print)) as native:
        return token_ids(native.tokenize(text, parse_special=True))


def chat(question: str, answer: str = "") -> TokenIds:
    return ids_of(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}")


async def run(
    engine: Engine, prompt: TokenIds, delivered: Sequence[int] = (), **sampling: Any
) -> tuple[list[int], list[Delta]]:
    """Run a job of one choice. Return its tokens and its deltas, without keep-alives, which depend on the machine."""
    deltas: list[Delta] = []
    start = Start(0, np.array(delivered, np.int32))
    await engine.run(Job(prompt, Sampling(**({"seed": 1} | sampling)), (start,)), deltas.append)
    deltas = [delta for delta in deltas if delta.tokens or delta.finish_reason is not None]
    assert [delta.finish_reason is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    return [token for delta in deltas for token in delta.tokens], deltas
