"""Request parameters: each has a row in the parameter table, and is treated as the table says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapter.api.chat.validation import read_request
from adapter.api.common.contract import Contract, table
from adapter.api.common.parameter_table import ALL, BOTH, TABLE, Endpoint, Handling
from adapter.api.completions.types import CompletionRequest
from adapter.api.completions.validation import read_completion
from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.messages.types import MessagesRequest
from adapter.api.messages.validation import read_messages
from adapter.errors import BadRequest
from tests import published

STRUCTS: dict[Endpoint, Any] = {
    "chat": ChatCompletionRequest,
    "completions": CompletionRequest,
    "messages": MessagesRequest,
}
READERS: dict[Endpoint, Any] = {"chat": read_request, "completions": read_completion, "messages": read_messages}
LEAST: dict[Endpoint, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
    "completions": {"model": "m", "prompt": "Hello"},
    "messages": {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
}

# Names of the requests in OpenAI's published description.
PUBLISHED: dict[Endpoint, str] = {
    "chat": """
        audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages
        metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
        prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed
        service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
        web_search_options""",
    "completions": """
        best_of echo frequency_penalty logit_bias logprobs max_tokens model n presence_penalty prompt seed stop stream
        stream_options suffix temperature top_p user""",
}
SCHEMAS: dict[Endpoint, str] = {"chat": "CreateChatCompletionRequest", "completions": "CreateCompletionRequest"}


def names(endpoint: Endpoint, *fates: Handling) -> list[str]:
    return [row.name for row in TABLE if endpoint in row.endpoints and (not fates or row.handling in fates)]


def read(endpoint: Endpoint, **fields: Any) -> Any:
    return READERS[endpoint](json.dumps(LEAST[endpoint] | fields).encode()).request


def refusal(endpoint: Endpoint, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(endpoint, **fields)
    return caught.value


@pytest.mark.parametrize("endpoint", BOTH)
def test_every_published_parameter_is_in_the_table(endpoint: Endpoint) -> None:
    """Every parameter in OpenAI's published API is in the table."""
    assert set(PUBLISHED[endpoint].split()) <= set(names(endpoint))


@pytest.mark.parametrize("endpoint", BOTH)
def test_the_list_of_published_parameters(endpoint: Endpoint) -> None:
    """The list of OpenAI's parameters in this file equals that of the published description."""
    assert set(PUBLISHED[endpoint].split()) == published.properties(SCHEMAS[endpoint])


@pytest.mark.parametrize("endpoint", ALL)
def test_honoured_parameters_are_the_request_fields(endpoint: Endpoint) -> None:
    """Each parameter has one row per endpoint, and the "honoured" ones are exactly the fields of the request, but for
    the older ones that are converted.
    """
    assert len(names(endpoint)) == len(set(names(endpoint)))
    older = {"functions", "function_call"} if endpoint == "chat" else set()
    assert set(names(endpoint, "honoured")) - older == set(STRUCTS[endpoint].__struct_fields__)


@pytest.mark.parametrize("endpoint", ALL)
def test_rejected_parameters(endpoint: Endpoint) -> None:
    """A "rejected" parameter is refused by name with the reason, unless its value is null or neutral."""
    for row in TABLE:
        if row.handling == "rejected" and endpoint in row.endpoints:
            error = refusal(endpoint, **{row.name: {"some": "thing"}})
            assert (error.param, error.code) == (row.name, "unsupported_parameter")
            assert row.note.replace("`", "'") in error.message
            for value in (None, *row.neutral):
                assert read(endpoint, **{row.name: value}) == read(endpoint)


@pytest.mark.parametrize("endpoint", ALL)
def test_parameters_without_effect(endpoint: Endpoint) -> None:
    """A parameter "without effect" is accepted, changes nothing, and is checked for its type only."""
    for row in TABLE:
        if row.handling == "no effect" and endpoint in row.endpoints:
            assert row.type is not None
            assert read(endpoint, **{row.name: row.type()}) == read(endpoint, **{row.name: None}) == read(endpoint)
            error = refusal(endpoint, **{row.name: [3]})
            assert (error.param, error.code) == (row.name, "invalid_type")


def test_values_that_look_neutral() -> None:
    """Values that only resemble a neutral one, such as 0 for false, or an infinite number, are rejected."""
    assert refusal("chat", store=0).param == "store"
    body = b'{"store": 1e999, ' + json.dumps(LEAST["chat"]).encode()[1:]
    with pytest.raises(BadRequest) as caught:
        read_request(body)
    assert caught.value.param == "store"


def test_contract_without_a_table() -> None:
    """An endpoint that honours all its parameters needs no rows in the table."""
    assert Contract(["input"]).check({}) == ()


def test_markdown_table() -> None:
    """The Markdown table has one row per parameter, each with as many columns as the head."""
    head, line, *rows = table().splitlines()
    assert [row.split("`")[1] for row in rows] == [row.name for row in TABLE]
    assert {row.count(" | ") for row in (head, *rows)} == {4}
    assert line == "|---|---|---|---|---|"
    store = next(row for row in rows if row.startswith("| `store`"))
    assert store == "| `store` | rejected |  |  | responses are not stored; only `false` is accepted |"
