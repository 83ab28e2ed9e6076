"""Embeddings and prompt logprobs of the llama.cpp engine with a real model."""

from __future__ import annotations

import asyncio
import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray

from subnet.engines.llama_cpp import LlamaCppEngine
from subnet.engines.llama_cpp.model import NativeModel
from subnet.errors import ContextLengthExceeded, InvalidRequest
from subnet.models.resolve import resolve
from subnet.tensors import token_ids
from tests.real_engine import CONTEXT, chat, ids_of, make_engine, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


def llama_cpp_mean(text: list[int]) -> NDArray[np.float32]:
    """Return llama.cpp's own mean-pooled embedding of a text of up to 32 tokens, normalised."""
    model = NativeModel(resolve(None, print))
    library = model.library
    library.llama_get_embeddings_seq.restype = ctypes.POINTER(ctypes.c_float)
    library.llama_get_embeddings_seq.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    params = library.llama_context_default_params()
    params.n_threads = 1
    params.n_threads_batch = 1
    params.pooling_type = 1
    context = library.llama_init_from_model(model.handle, params)
    library.llama_set_embeddings(context, True)
    batch = library.llama_batch_init(32, 0, 1)
    for index, token in enumerate(text):
        batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, index, 1
        batch.seq_id[index][0], batch.logits[index] = 0, True
    batch.n_tokens = len(text)
    assert library.llama_decode(context, batch) == 0
    mean = np.ctypeslib.as_array(library.llama_get_embeddings_seq(context, 0), (model.dimensions,)).copy()
    library.llama_batch_free(batch)
    library.llama_free(context)
    model.close()
    unit: NDArray[np.float32] = mean / np.linalg.norm(mean)
    return unit


TEXTS = ["The cat sat on the mat.", "A kitten was sitting on a rug.", "Quarterly revenue rose by four percent."]


async def test_similar_texts_have_similar_embeddings(engine: LlamaCppEngine) -> None:
    """Embeddings have norm 1, and those of similar texts are more similar."""
    vectors = await engine.embed([ids_of(text) for text in TEXTS])
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 576)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert vectors[0] @ vectors[1] > max(vectors[2] @ vectors[0], vectors[2] @ vectors[1]) + 0.1
    assert (await engine.embed([])).shape == (0, 576)


async def test_embeddings_equal_llama_cpps_mean_pooling(engine: LlamaCppEngine) -> None:
    """The embedding of a text equals llama.cpp's own mean pooling."""
    text = ids_of(TEXTS[0]).tolist()
    [ours] = await engine.embed([token_ids(text)])
    assert ours @ llama_cpp_mean(text) == pytest.approx(1, abs=1e-5)


async def test_embeddings_and_answers_do_not_affect_each_other(engine: LlamaCppEngine) -> None:
    """Embeddings computed between the steps of an answer are bitwise the same, and so is the answer."""
    texts = [ids_of(text) for text in (TEXTS[0], " ".join(TEXTS) * 4, TEXTS[1])]
    alone, (tokens, deltas) = await engine.embed(texts), await run(engine, chat("Count."), max_tokens=16, logprobs=2)
    async with make_engine(capacity=1) as other:
        vectors, again = await asyncio.gather(other.embed(texts), run(other, chat("Count."), max_tokens=16, logprobs=2))
    assert np.array_equal(vectors, alone)
    assert again[0] == tokens
    assert [delta.logprobs for delta in again[1]] == [delta.logprobs for delta in deltas]


async def test_scores_equal_logprobs_of_generation(engine: LlamaCppEngine) -> None:
    """Prompt logprobs of a generated text equal, bit by bit, the logprobs reported during generation."""
    prompt = chat("Tell me a story.")
    tokens, deltas = await run(engine, prompt, max_tokens=8, logprobs=3)
    scores = await engine.score(token_ids([*prompt, *tokens]), 3)
    assert len(scores) == len(prompt) + len(tokens) - 1
    assert scores[len(prompt) - 1 :] == [logprobs for delta in deltas for logprobs in delta.logprobs or []]
    assert await engine.score(prompt[:1], 3) == []


@pytest.mark.parametrize(
    ("text", "error"), [([], InvalidRequest), ([49152], InvalidRequest), ([5] * (CONTEXT + 1), ContextLengthExceeded)]
)
async def test_invalid_texts_are_rejected(engine: LlamaCppEngine, text: list[int], error: type[Exception]) -> None:
    """Texts that are empty, too long or have unknown tokens are rejected."""
    with pytest.raises(error):
        await engine.embed([token_ids([5]), token_ids(text)])
    with pytest.raises(error):
        await engine.score(token_ids(text), 0)


async def test_a_text_may_fill_the_context() -> None:
    """A text that fills the context can be embedded after a short one."""
    async with make_engine(capacity=1) as engine:
        vectors = await engine.embed([token_ids([5]), token_ids([5] * CONTEXT)])
        assert vectors.shape == (2, 576)
