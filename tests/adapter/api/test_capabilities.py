"""Requests that only some nodes of a model support."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from subnet.errors import InvalidRequest, NodeLost
from subnet.generation import Need, needs_of
from subnet.node_info import Capabilities
from subnet.protocols.mock import MockProtocol, Step
from subnet.wire.messages import Generate
from tests.fakes import ASK, events_of, gateway

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}
TOOLS = [{"type": "function", "function": {"name": "wait"}}]
FORCED = {"tools": TOOLS, "tool_choice": "required"}
ALL = Capabilities(
    resume="exact",
    top_logprobs=5,
    top_k=True,
    min_p=True,
    typical_p=True,
    penalties=True,
    logit_bias=True,
    min_tokens=True,
    ignore_eos=True,
    grammars=("json_schema", "regex", "lark"),
)
JSON_ONLY = Capabilities(resume="exact", grammars=("json_schema", "regex"))
PARAMETERS: list[dict[str, Any]] = [
    {"top_k": 4},
    {"min_p": 0.1},
    {"typical_p": 0.5},
    {"frequency_penalty": 1},
    {"presence_penalty": 1},
    {"repetition_penalty": 1.1},
    {"logit_bias": {"7": 1}},
    {"min_tokens": 1},
    {"ignore_eos": True},
    {"response_format": {"type": "json_object"}},
    {"structured_outputs": {"regex": "a+"}},
    FORMAT,
    FORCED,
]


class Strict(MockProtocol):
    """Scripted node that refuses what it does not support, as engines do."""

    def __init__(self, text: str, peer: str, capabilities: Capabilities | None = None, **options: Any) -> None:
        self._supported = capabilities or Capabilities(resume="exact")
        self._steps: list[Step] = [*text.encode(), *options.pop("steps", ())]
        super().__init__(self._play, peer=peer, capabilities=self._supported, **options)

    def _play(self, request: Generate) -> list[Step]:
        for need in needs_of(request.sampling):
            if not need.is_met(self._supported):
                raise InvalidRequest(f"Unsupported value for '{need.param}'.", param=need.param)
        return self._steps


@pytest.mark.parametrize("fields", PARAMETERS, ids=str)
async def test_only_capable_nodes_are_asked(fields: dict[str, Any]) -> None:
    """A request goes to the node that supports it, each time; plain requests go to both."""
    plain, able = Strict("plain", "plain"), Strict("able", "able", ALL)
    async with gateway(plain, able) as url, httpx.AsyncClient(base_url=url) as http:
        for _ in range(3):
            assert (await http.post(CHAT, json={**ASK, **fields})).status_code == 200
        assert (len(plain.requests), len(able.requests)) == (0, 3)
        for _ in range(2):
            await http.post(CHAT, json=ASK)
    assert len(plain.requests) == 1


async def test_the_number_of_logprobs_counts() -> None:
    """A node with fewer logprobs than requested is not asked."""
    few, able = Strict("few", "few", Capabilities(top_logprobs=2)), Strict("able", "able", ALL)
    async with gateway(few, able) as url, httpx.AsyncClient(base_url=url) as http:
        for width in (5, 3, 5):
            # The scripted nodes do not return logprobs, so the answer fails.
            await http.post(CHAT, json={**ASK, "logprobs": True, "top_logprobs": width})
    assert (len(few.requests), len(able.requests) > 0) == (0, True)


async def test_no_capable_node() -> None:
    """If no node supports a parameter, the client gets the 400 that names it."""
    async with gateway(Strict("a", "a"), Strict("b", "b")) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post(CHAT, json={**ASK, "min_p": 0.1})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "min_p")


@pytest.mark.parametrize("fields", [FORMAT, FORCED], ids=["format", "forced"])
async def test_a_node_without_grammars_takes_them_from_no_other(fields: dict[str, Any]) -> None:
    """Of a node without grammars and one with JSON schemas alone, the second gets a JSON schema."""
    text = '{"name": "wait", "arguments": {}}'
    plain, able = Strict("plain", "plain"), Strict(text, "able", JSON_ONLY)
    async with gateway(plain, able) as url, httpx.AsyncClient(base_url=url) as http:
        for _ in range(2):
            assert (await http.post(CHAT, json={**ASK, **fields})).status_code == 200
    kinds = [request.sampling.grammar and request.sampling.grammar.kind for request in able.requests]
    assert (kinds, plain.requests) == (["json_schema"] * 2, [])


async def test_a_grammar_that_all_support_is_preferred() -> None:
    """If all nodes support JSON schemas and only one Lark grammars, both get forced calls, as JSON schemas."""
    text = '{"name": "wait", "arguments": {}}'
    nodes = Strict(text, "json", JSON_ONLY), Strict(text, "lark", ALL)
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as http:
        for _ in range(4):
            assert (await http.post(CHAT, json={**ASK, **FORCED})).status_code == 200
    assert [len(node.requests) for node in nodes] == [2, 2]


async def test_the_rest_of_an_answer_goes_to_a_capable_node() -> None:
    """A node that does not support a request is not asked for the rest of its answer either."""
    lost = Strict("He", "lost", ALL, steps=[NodeLost("gone")])
    nodes = lost, Strict("plain", "plain"), Strict("Hello", "able", ALL)
    async with gateway(*nodes) as url, httpx.AsyncClient(base_url=url) as http:
        events = events_of((await http.post(CHAT, json={**ASK, "min_p": 0.1, "stream": True})).content)
    text = "".join(choice["delta"].get("content", "") for event in events[:-1] for choice in event["choices"])
    assert (text, nodes[1].requests) == ("Hello", [])


@pytest.mark.parametrize("begun", ["", "He"])
async def test_a_lost_capable_node_does_not_make_a_request_invalid(begun: str) -> None:
    """If the only capable node is lost, the request fails with its error, and is not refused by another node."""
    plain, lost = Strict("plain", "plain"), Strict(begun, "lost", ALL, steps=[NodeLost("gone")])
    async with gateway(plain, lost) as url, httpx.AsyncClient(base_url=url) as http:
        response = await http.post(CHAT, json={**ASK, "min_p": 0.1})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "node_failed")
    assert not plain.requests


def test_needs_are_compared() -> None:
    """A need is met by a true or large enough field, or by a list that includes its level."""
    assert Need("min_p", "min_p").is_met(ALL)
    assert not Need("min_p", "min_p").is_met(JSON_ONLY)
    assert [Need("a", "top_logprobs", level).is_met(ALL) for level in (0, 5, 6)] == [True, True, False]
    assert [Need("a", "grammars", kind).is_met(JSON_ONLY) for kind in ("regex", "lark")] == [True, False]
