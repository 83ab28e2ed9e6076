"""Measurement of exact rows, and answers of a model whose results depend on the number of rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from subnet.engines.llama_cpp import LlamaCppEngine
from subnet.engines.llama_cpp.exactness import exact_rows
from subnet.engines.llama_cpp.model import MAX_ROWS, NativeContext, NativeModel
from subnet.generation import Delta
from subnet.models.resolve import resolve
from subnet.tensors import token_ids
from tests.real_engine import run

PROMPT = token_ids([(number * 7919 + 13) % 49_000 for number in range(150)])


@pytest.fixture(scope="module")
def model() -> Iterator[NativeModel]:
    model = NativeModel(resolve(None, print))
    yield model
    model.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(second_model: Path) -> AsyncIterator[LlamaCppEngine]:
    async with LlamaCppEngine(model_path=second_model, context_length=512, threads=1) as engine:
        yield engine


def test_the_measurement_is_kept(model: NativeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is kept by fingerprint and number of threads."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = exact_rows(model, 1, "weights")
    assert 1 <= rows <= MAX_ROWS
    (path,) = (tmp_path / "subnet-adapter" / "exact-rows").iterdir()
    assert path.read_text() == str(rows)
    path.write_text("1" if rows > 1 else "2")
    assert exact_rows(model, 1, "weights") == int(path.read_text())


def test_a_second_row_changes_nothing(model: NativeModel) -> None:
    """A context for several threads decodes single rows beside another one, which leaves nothing behind."""
    found = []
    for max_rows in (1, MAX_ROWS):
        context = NativeContext(model, 2, 512, 2, max_rows=max_rows)
        context.decode([(token, position, 0, False) for position, token in enumerate(PROMPT[:64].tolist())])
        steps = [context.decode([(int(PROMPT[at]), at, 0, True)])[0].copy() for at in range(64, 66)]
        context.copy(0, 1)
        both = context.decode([(int(PROMPT[66]), 66, 0, True), (int(PROMPT[66]), 66, 1, True)])
        found.append([*steps, both[0].copy(), both[1].copy()])
        context.close()
    assert all((one == other).all() for one, other in zip(*found, strict=True))


@pytest.mark.asyncio(loop_scope="module")
async def test_answers_of_the_second_model_are_exact(second: LlamaCppEngine, second_model: Path) -> None:
    """Beside others, from the cache, and resumed at several tokens on another engine, an answer is bitwise equal."""
    sampling: dict[str, Any] = {"max_tokens": 16, "logprobs": 2, "ignore_eos": True, "seed": 5}
    assert second.capabilities.resume == "exact"
    whole, deltas = await run(second, PROMPT, **sampling)
    beside = await asyncio.gather(*(run(second, PROMPT[:length], **sampling) for length in (150, 40, 149)))
    assert (beside[0][0], logprobs(beside[0][1])) == (whole, logprobs(deltas))
    async with LlamaCppEngine(model_path=second_model, context_length=512, threads=1, capacity=1) as other:
        for cut in (1, 2, 5, 11):
            rest, last = await run(other, PROMPT, whole[:cut], **sampling)
            assert (rest, logprobs(last)) == (whole[cut:], logprobs(deltas)[cut:])


@pytest.mark.asyncio(loop_scope="module")
async def test_the_second_models_prompt_cache_changes_nothing(second: LlamaCppEngine, second_model: Path) -> None:
    """The next turn, which finds its beginning in the cache, is bitwise equal to that of an engine without a cache."""
    sampling: dict[str, Any] = {"max_tokens": 8, "logprobs": 2, "ignore_eos": True}
    answer, _ = await run(second, PROMPT, **sampling)
    following = token_ids([*PROMPT, *answer, *PROMPT[:30]])
    tokens, deltas = await run(second, following, **sampling)
    assert deltas[0].cached_tokens == 128
    async with LlamaCppEngine(
        model_path=second_model, context_length=512, threads=1, capacity=1, prompt_cache=False
    ) as other:
        expected = await run(other, following, **sampling)
    assert (tokens, logprobs(deltas)) == (expected[0], logprobs(expected[1]))


def logprobs(deltas: list[Delta]) -> list[object]:
    return [logprobs for delta in deltas for logprobs in delta.logprobs or []]
