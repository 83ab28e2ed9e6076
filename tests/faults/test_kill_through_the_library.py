"""Nodes killed under users of the library: the user gets the tokens of an undisturbed run."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from adapter.prompt import load_tokenizer
from subnet.generation import Grammar, Sampling
from subnet.models.card import describe
from subnet.models.resolve import resolve
from subnet.node_info import TokenizerArtefact
from tests.faults import programs
from tests.faults.conftest import Record
from tests.faults.killing import Cuts, Name, killed_at
from tests.faults.library import Request

TOKENS = 24
COMMON = (257, 258, 259)
"""The likeliest tokens of an echo node."""
HOW: dict[str, dict[str, Any]] = {"with a seed": {"seed": 7}, "greedy": {"temperature": 0.0}}
FEATURES = {
    "logprobs": Request(Sampling(max_tokens=TOKENS, logprobs=5)),
    "3 choices": Request(Sampling(max_tokens=TOKENS // 3), 3),
    "3 choices with logprobs": Request(Sampling(max_tokens=TOKENS // 3, logprobs=5), 3),
    "3 choices that end apart": Request(Sampling(max_tokens=TOKENS // 3, stop_tokens=COMMON), 3),
    "penalties": Request(Sampling(max_tokens=TOKENS, frequency_penalty=1.2, presence_penalty=0.6)),
    "3 choices with penalties": Request(
        Sampling(max_tokens=TOKENS // 3, frequency_penalty=1.2, presence_penalty=0.6), 3
    ),
}


def drawn(features: dict[str, Request]) -> dict[Name, Request]:
    """Combine each feature with each way of sampling."""
    return {
        (feature, how): Request(msgspec.structs.replace(request.sampling, **options), request.choices)
        for feature, request in features.items()
        for how, options in HOW.items()
    }


@pytest.fixture(scope="module")
def echo() -> dict[Name, Cuts]:
    """Echo nodes killed before the first token, after each, and after the last."""
    return killed_at(
        drawn(FEATURES),
        *programs.PACED,
        prompt=[103, 111],
        cuts=lambda tokens: range(tokens + 1),
    )


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("feature", FEATURES)
def test_after_every_token(feature: str, how: str, echo: dict[Name, Cuts], record_property: Record) -> None:
    """After a kill at any token, the library returns the same tokens, logprobs and finish reasons, and only lost tokens
    are generated again.
    """
    cuts = echo[feature, how]
    record_property("cell", (f"killed after each token, through the library: {feature}", how, str(cuts)))
    assert cuts.same == cuts.made == list(range(cuts.whole.counted + 1))


def test_choices_have_different_lengths(echo: dict[Name, Cuts]) -> None:
    """The compared answer has choices of different lengths, so that some kills happen when a choice is complete."""
    whole = echo["3 choices that end apart", "with a seed"].whole
    assert {choice.reason for choice in whole.choices} == {"stop", "length"}
    assert len({len(choice.tokens) for choice in whole.choices}) == 3


REAL = ("subnet.cli", "node", "--threads", "1", "--context-length", "512", "--concurrency", "8")
PROMPT = "<|im_start|>user\nDescribe a cat as JSON with name and age.<|im_end|>\n<|im_start|>assistant\n"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
REAL_FEATURES = {
    "2 choices with logprobs": Request(Sampling(max_tokens=16, logprobs=3), 2),
    "penalties": Request(Sampling(max_tokens=16, frequency_penalty=1.2, presence_penalty=0.6)),
    "JSON schema": Request(Sampling(max_tokens=60, grammar=Grammar("json_schema", json.dumps(SCHEMA)))),
}


@pytest.fixture(scope="module")
def artefact() -> TokenizerArtefact:
    return TokenizerArtefact.from_bytes(describe(resolve(None, print))[1])


@pytest.fixture(scope="module")
def model(artefact: TokenizerArtefact) -> dict[Name, Cuts]:
    """Nodes with the real model killed before the first token, after a third, and after two thirds."""
    return killed_at(
        drawn(REAL_FEATURES),
        *REAL,
        prompt=[int(token) for token in load_tokenizer(artefact).encode_prompt(PROMPT)],
        cuts=lambda tokens: [tokens * part // 3 for part in range(3)],
    )


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("feature", REAL_FEATURES)
def test_the_real_model(feature: str, how: str, model: dict[Name, Cuts], record_property: Record) -> None:
    """After a kill, the library returns a real model's tokens and logprobs unchanged, bit by bit."""
    cuts = model[feature, how]
    record_property("cell", (f"killed, with the real model, through the library: {feature}", how, str(cuts)))
    assert cuts.same == cuts.made


@pytest.mark.parametrize("how", HOW)
def test_json_fits_its_schema(how: str, artefact: TokenizerArtefact, model: dict[Name, Cuts]) -> None:
    """The undisturbed answer, to which interrupted ones are compared, matches its JSON schema."""
    (choice,) = model["JSON schema", how].whole.choices
    found = json.loads(b"".join(artefact.pieces[token] for token in choice.tokens))
    assert set(found) == {"name", "age"}
