"""What a llama-server is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from subnet.engines.llama_server.api import SAMPLING, likeliest, request
from subnet.engines.llama_server.grammar import kinds, limited
from subnet.errors import InvalidRequest
from subnet.generation import Grammar, Job, Sampling, Start
from subnet.node_info import GrammarKind
from subnet.wire.tensors import token_ids
from tests.test_vllm_engine import EVERYTHING, unmapped

ALL: tuple[GrammarKind, ...] = ("json_schema", "regex", "lark")
NONE = token_ids([])


def asked(tokens: list[int], **sampling: Any) -> dict[str, Any]:
    job = Job(token_ids([1, 2]), Sampling(**({"seed": 1} | sampling)), (Start(0, NONE),))
    return request(job, 0, tokens, 5, 256)


def test_every_parameter_is_mapped() -> None:
    """All of Sampling, by the server's names."""
    body = asked([3], **EVERYTHING)
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


def test_its_own_defaults_are_off() -> None:
    """A request that asks for nothing gets OpenAI's defaults, not top_k 40 and min_p 0.05."""
    body = asked([])
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (1.0, 1.0, 0, 0.0)
    assert (body["repeat_penalty"], body["mirostat"], body["dynatemp_range"], body["n_probs"]) == (1.0, 0, 0.0, 0)
    assert not {"dry", "xtc", "top_n_sigma"} & set(body["samplers"])


def test_the_table_has_every_field() -> None:
    """What is not in it depends on more than its value, or is not declared."""
    assert unmapped(SAMPLING) == {"max_tokens", "min_tokens", "seed", "stop_tokens", "grammar"}


def test_a_seed_is_never_the_random_one() -> None:
    """Nor the same at another place."""
    seeds = {asked(list(range(at)), seed=seed)["seed"] for at in range(20) for seed in (-(2**63), -1, 0, 2**64)}
    assert len(seeds) == 80
    assert max(seeds) < 2**31


def test_logprobs_of_the_token_alone_are_asked_for_by_one() -> None:
    """With 0 the server gives none."""
    assert asked([], logprobs=0)["n_probs"] == 1
    assert likeliest([1], 7, 64)["n_probs"] == 64


async def test_grammars_go_by_how_the_server_was_built() -> None:
    """One without llguidance gets the schema as it is, and never the mark of an llguidance grammar."""
    schema = Grammar("json_schema", '{"type": "object"}')
    gbnf = kinds("root ::= object")
    assert gbnf == ("json_schema",)
    assert await limited(schema, gbnf) == {"json_schema": {"type": "object"}}
    assert kinds("%llguidance {}\nstart: %json {}") == ALL
    text = (await limited(schema, ALL))["grammar"]
    head, _, lark = text.partition("\n")
    assert head == "%llguidance {}"
    assert json.loads(lark.removeprefix("start: %json "))["type"] == "object"
    assert await limited(Grammar("regex", "a/b"), ALL) == {"grammar": "%llguidance {}\nstart: /a\\/b/"}
    assert await limited(Grammar("lark", 'start: "a"'), ALL) == {"grammar": '%llguidance {}\nstart: "a"'}
    assert await limited(None, ALL) == {}


@pytest.mark.parametrize("grammar", [Grammar("json_schema", "{"), Grammar("lark", "start: x"), Grammar("regex", "(")])
async def test_a_grammar_that_is_none_is_refused(grammar: Grammar) -> None:
    """Before the server sees it, which would write without one."""
    with pytest.raises(InvalidRequest) as caught:
        await limited(grammar, ALL)
    assert caught.value.param == "grammar"
    assert "\n" not in caught.value.message
