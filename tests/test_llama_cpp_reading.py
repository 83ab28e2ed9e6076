"""Texts that the real model reads: embeddings and scores."""

from __future__ import annotations

import asyncio
import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray

from subnet.engines.llama_cpp import LlamaCppEngine, native
from subnet.engines.llama_cpp.model import NativeModel
from subnet.errors import ContextLengthExceeded, InvalidRequest
from subnet.models.resolve import resolve
from subnet.wire.tensors import token_ids
from tests.real_engine import CONTEXT, chat, ids_of, make_engine, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


def llama_cpp_mean(text: list[int]) -> NDArray[np.float32]:
    """The mean of the hidden states of a text of up to 32 tokens, of length 1, as llama.cpp's own pooling makes it."""
    model = NativeModel(resolve(None, print))
    library = model.library
    library.llama_get_embeddings_seq.restype = ctypes.POINTER(ctypes.c_float)
    library.llama_get_embeddings_seq.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    params = library.llama_context_default_params()
    params.set(native.N_THREADS, 1)
    params.set(native.N_THREADS_BATCH, 1)
    params.set(native.POOLING, 1)
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


async def test_embeddings_tell_what_texts_are_about(engine: LlamaCppEngine) -> None:
    """Vectors of length 1, nearer for texts that mean the same, and the same whatever else is asked for."""
    vectors = await engine.embed([ids_of(text) for text in TEXTS])
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 576)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert vectors[0] @ vectors[1] > max(vectors[2] @ vectors[0], vectors[2] @ vectors[1]) + 0.1
    assert (await engine.embed([])).shape == (0, 576)


async def test_embeddings_are_those_of_llama_cpp(engine: LlamaCppEngine) -> None:
    """The mean that llama.cpp itself makes of a text gives the same vector."""
    text = ids_of(TEXTS[0]).tolist()
    [ours] = await engine.embed([token_ids(text)])
    assert ours @ llama_cpp_mean(text) == pytest.approx(1, abs=1e-5)


async def test_embeddings_and_answers_leave_each_other_alone(engine: LlamaCppEngine) -> None:
    """Made between the steps of an answer, from texts of any length, vectors and tokens come out to the same bits."""
    texts = [ids_of(text) for text in (TEXTS[0], " ".join(TEXTS) * 4, TEXTS[1])]
    alone, (tokens, deltas) = await engine.embed(texts), await run(engine, chat("Count."), max_tokens=16, logprobs=2)
    async with make_engine(capacity=1) as other:
        vectors, again = await asyncio.gather(other.embed(texts), run(other, chat("Count."), max_tokens=16, logprobs=2))
    assert np.array_equal(vectors, alone)
    assert again[0] == tokens
    assert [delta.logprobs for delta in again[1]] == [delta.logprobs for delta in deltas]


async def test_the_prompts_own_logprobs(engine: LlamaCppEngine) -> None:
    """A text that was generated scores to the bit what its tokens had when they were drawn."""
    prompt = chat("Tell me a story.")
    tokens, deltas = await run(engine, prompt, max_tokens=8, logprobs=3)
    scores = await engine.score(token_ids([*prompt, *tokens]), 3)
    assert len(scores) == len(prompt) + len(tokens) - 1
    assert scores[len(prompt) - 1 :] == [logprobs for delta in deltas for logprobs in delta.logprobs or []]
    assert await engine.score(prompt[:1], 3) == []


@pytest.mark.parametrize(
    ("text", "error"), [([], InvalidRequest), ([49152], InvalidRequest), ([5] * (CONTEXT + 1), ContextLengthExceeded)]
)
async def test_texts_that_cannot_be_read(engine: LlamaCppEngine, text: list[int], error: type[Exception]) -> None:
    """Empty, unknown and too long ones are the client's mistake; the longest that fits is read."""
    with pytest.raises(error):
        await engine.embed([token_ids([5]), token_ids(text)])
    with pytest.raises(error):
        await engine.score(token_ids(text), 0)


async def test_the_longest_text_is_read() -> None:
    """A text that fills the context, after a short one for which less room was made."""
    async with make_engine(capacity=1) as engine:
        vectors = await engine.embed([token_ids([5]), token_ids([5] * CONTEXT)])
        assert vectors.shape == (2, 576)
