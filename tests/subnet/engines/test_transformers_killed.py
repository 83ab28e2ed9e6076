"""Failover of answers when transformers nodes are killed with SIGKILL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from subnet.generation import Grammar, Sampling
from tests.faults.killing import Cuts, Name, killed_at
from tests.faults.library import Request
from tests.tiny_model import tiny_model

pytest.importorskip("torch", reason="the extra `transformers` is not installed")
pytest.importorskip("transformers", reason="the extra `transformers` is not installed")

PENALTIES: dict[str, Any] = {"frequency_penalty": 1.2, "presence_penalty": 0.6, "repetition_penalty": 1.1}
CAT = Grammar("regex", '\\{"cat": "(sat|mat)", "dog": "[a-z]{6}"\\}')
REQUESTS: dict[Name, Request] = {
    ("2 choices", "greedy and with logprobs"): Request(Sampling(max_tokens=24, temperature=0, logprobs=3), 2),
    ("penalties", "with a seed"): Request(Sampling(max_tokens=24, seed=7, **PENALTIES)),
    ("a grammar", "with a seed"): Request(Sampling(max_tokens=60, seed=7, grammar=CAT)),
}


def thirds(tokens: int) -> list[int]:
    return [tokens // 3, tokens * 2 // 3]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[Name, Cuts]:
    """Answers whose node is killed after a third and after two thirds of their tokens."""
    folder: Path = tiny_model(tmp_path_factory.mktemp("killed") / "tiny")
    command = ("subnet.cli", "node", "--engine", "transformers", "--model", str(folder), "--threads", "1")
    return killed_at(REQUESTS, *command, prompt=[0, 50, 60, 70, 80, 90], cuts=thirds)


@pytest.mark.parametrize("name", REQUESTS, ids=", ".join)
def test_interrupted_answers_equal_uninterrupted_ones(name: Name, killed: dict[Name, Cuts]) -> None:
    """Tokens, logprobs, finish reasons and counts equal those of an uninterrupted answer, and only lost tokens are
    generated again."""
    cuts = killed[name]
    assert cuts.whole.counted > 10
    assert cuts.same == cuts.made
