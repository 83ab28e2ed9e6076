"""Errors of nodes name parameters as the client called them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from adapter.generation.param_names import renamed_params
from subnet.errors import InvalidRequest
from subnet.protocols.mock import MockProtocol
from tests.fakes import ASK, gateway

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"name": "x", "schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": SCHEMA}, "tools": [TOOL]}, "response_format"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tools"),
        ({"tools": [TOOL], "tool_choice": "required", "response_format": {"type": "text"}}, "tools"),
        ({"structured_outputs": {"regex": "a+"}}, "structured_outputs"),
        ({"guided_json": {"type": "object"}}, "guided_json"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"guided_choice": ["a"]}, "guided_choice"),
        ({"guided_grammar": 'root ::= "a"'}, "guided_grammar"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_parameter_behind_the_grammar(stream: bool, fields: dict[str, Any], param: str) -> None:
    """If a node rejects the grammar, the error names the parameter that it was made from, in `param` and in the
    message.
    """
    message = "Unsupported value for 'grammar': this model does not support it."
    node = MockProtocol([InvalidRequest(message, param="grammar")])
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post("/v1/chat/completions", json={**ASK, "stream": stream, **fields})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, "invalid_value")
    assert error["message"] == f"Unsupported value for '{param}': this model does not support it."


@pytest.mark.parametrize("param", ["top_k", None])
def test_other_names_are_unchanged(param: str | None) -> None:
    """An error whose parameter has the same name for clients is raised unchanged."""
    error = InvalidRequest("no", param=param)
    with pytest.raises(InvalidRequest) as caught, renamed_params({"grammar": "tools"}):
        raise error
    assert caught.value is error
