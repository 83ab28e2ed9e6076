"""Requests to llama-server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from subnet.engines.llama_server.grammar_fields import supported_kinds, to_request_fields
from subnet.engines.llama_server.llama_server_api import SAMPLING, build_request, build_top_tokens_request
from subnet.engines.remote.choice_output import ChoiceOutput
from subnet.errors import InvalidRequest
from subnet.generation import Grammar, Job, Sampling, Start
from subnet.node_info import GrammarKind
from subnet.tensors import token_ids
from tests.subnet.engines.test_vllm_engine import ALL_PARAMETERS, unmapped

ALL: tuple[GrammarKind, ...] = ("json_schema", "regex", "lark")
NO_TOKENS = token_ids([])


def request_body(tokens: list[int], **sampling: Any) -> dict[str, Any]:
    job = Job(token_ids([1, 2]), Sampling(**({"seed": 1} | sampling)), (Start(0, NO_TOKENS),))
    output = ChoiceOutput(0, Sampling(), (), 100, lambda delta: None)
    output.add(tokens)
    return build_request(job, output, 5, 256)


def test_every_parameter_is_mapped() -> None:
    """Every field of Sampling is sent under the server's name."""
    body = request_body([3], **ALL_PARAMETERS)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k", "min_p", "typical_p")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "typical_p": 1.0,
    }
    assert (body["frequency_penalty"], body["presence_penalty"], body["repeat_penalty"]) == (0.1, 0.2, 1.1)
    assert (body["logit_bias"], body["ignore_eos"], body["n_probs"]) == ([[7, 1.5]], True, 2)
    assert (body["prompt"], body["n_predict"], body["repeat_last_n"]) == ([1, 2, 3], 5, 256)


def test_server_defaults_are_overridden() -> None:
    """A request without parameters has OpenAI's defaults, not the server's top_k 40 and min_p 0.05."""
    body = request_body([])
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (1.0, 1.0, 0, 0.0)
    assert (body["repeat_penalty"], body["mirostat"], body["dynatemp_range"], body["n_probs"]) == (1.0, 0, 0.0, 0)
    assert not {"dry", "xtc", "top_n_sigma"} & set(body["samplers"])


def test_the_table_has_every_field() -> None:
    """Every field of Sampling is in the table, unless it is set separately or unsupported."""
    assert unmapped(SAMPLING) == {"max_tokens", "min_tokens", "seed", "stop_tokens", "grammar"}


def test_seeds_are_distinct_and_not_random() -> None:
    """Seeds differ between positions, and never equal the value that selects a random seed."""
    seeds = {request_body(list(range(at)), seed=seed)["seed"] for at in range(20) for seed in (-(2**63), -1, 0, 2**64)}
    assert len(seeds) == 80
    assert max(seeds) < 2**31


def test_zero_logprobs_request_one_alternative() -> None:
    """With 0 logprobs one alternative is requested, because the server returns none otherwise."""
    assert request_body([], logprobs=0)["n_probs"] == 1
    assert build_top_tokens_request([1], 7, 64)["n_probs"] == 64


async def test_grammars_depend_on_how_the_server_was_built() -> None:
    """A server without llguidance receives the schema unchanged, and never the mark of an llguidance grammar."""
    schema = Grammar("json_schema", '{"type": "object"}')
    gbnf = supported_kinds("root ::= object")
    assert gbnf == ("json_schema",)
    assert await to_request_fields(schema, gbnf) == {"json_schema": {"type": "object"}}
    assert supported_kinds("%llguidance {}\nstart: %json {}") == ALL
    text = (await to_request_fields(schema, ALL))["grammar"]
    first_line, _, lark = text.partition("\n")
    assert first_line == "%llguidance {}"
    assert json.loads(lark.removeprefix("start: %json "))["type"] == "object"
    assert await to_request_fields(Grammar("regex", "a/b"), ALL) == {"grammar": "%llguidance {}\nstart: /a\\/b/"}
    assert await to_request_fields(Grammar("lark", 'start: "a"'), ALL) == {"grammar": '%llguidance {}\nstart: "a"'}
    assert await to_request_fields(None, ALL) == {}


@pytest.mark.parametrize("grammar", [Grammar("json_schema", "{"), Grammar("lark", "start: x"), Grammar("regex", "(")])
async def test_an_invalid_grammar_is_rejected(grammar: Grammar) -> None:
    """An invalid grammar is rejected before it is sent, because the server would ignore it."""
    with pytest.raises(InvalidRequest) as caught:
        await to_request_fields(grammar, ALL)
    assert caught.value.param == "grammar"
    assert "\n" not in caught.value.message
