"""Calls and results of the history whose ids a client left out."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from adapter.api.chat.validation import read_request
from adapter.api.conversation.call_ids import complete_ids
from adapter.config import Settings
from adapter.errors import BadRequest
from tests.fakes import ASK, gateway, saying

USER = {"role": "user", "content": "Hi"}


def calling(*calls: tuple[str, str | None]) -> dict[str, Any]:
    """Return a message with these calls: name and id."""
    found = [{"id": id_, "type": "function", "function": {"name": name, "arguments": "{}"}} for name, id_ in calls]
    return {"role": "assistant", "content": "", "tool_calls": found}


def result(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": text, **fields}


def pairs(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return each result with the call that has its id, after the ids were completed."""
    completed = complete_ids(messages)
    calls = {call["id"]: call["function"]["name"] for message in completed for call in message.get("tool_calls", ())}
    return [
        (calls.get(message.get("tool_call_id", ""), ""), message["content"])
        for message in completed
        if message["role"] == "tool"
    ]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        # By order, as Ollama's client and imports of Open WebUI.
        ([calling(("a", None), ("b", None)), result("1"), result("2")], [("a", "1"), ("b", "2")]),
        # By name.
        ([calling(("a", None), ("b", None)), result("1", name="b"), result("2", name="a")], [("b", "1"), ("a", "2")]),
        # By the name as the id, as the OpenAI SDK for Node.js after an empty id.
        ([calling(("a", ""), ("b", "")), result("1", tool_call_id="b"), result("2")], [("b", "1"), ("a", "2")]),
        # Only the results lack ids, or only one call does.
        ([calling(("a", "x"), ("b", "y")), result("1"), result("2")], [("a", "1"), ("b", "2")]),
        ([calling(("a", "x"), ("b", None)), result("1"), result("2", tool_call_id="x")], [("b", "1"), ("a", "2")]),
        # Made up for the results.
        ([calling(("a", None)), result("1", tool_call_id="made up")], [("a", "1")]),
        # The same name in two turns, and a result too many.
        ([calling(("a", "")), result("1"), calling(("a", "")), result("2")], [("a", "1"), ("a", "2")]),
        ([calling(("a", "")), result("1"), result("2")], [("a", "1"), ("", "2")]),
        ([result("1"), USER, calling(("a", "x")), USER, result("2")], [("", "1"), ("", "2")]),
    ],
)  # fmt: skip
def test_pairs(messages: list[dict[str, Any]], expected: list[tuple[str, str]]) -> None:
    assert pairs(messages) == expected
    completed = complete_ids(messages)
    ids = [call["id"] for message in completed for call in message.get("tool_calls", ())]
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_what_is_complete_stays() -> None:
    """Nothing is changed of a conversation that has all ids, and an id of the client's is never given twice."""
    messages = [calling(("a", "x")), result("1", tool_call_id="other")]
    assert complete_ids(messages) is messages
    completed = complete_ids([calling(("a", "call_0"), ("b", None)), result("1", tool_call_id="call_0"), result("2")])
    assert [call["id"] for call in completed[0]["tool_calls"]] == ["call_0", "call_1"]


def test_prompts_begin_alike() -> None:
    """What is added to a conversation does not change the ids before it."""
    messages = [USER, calling(("a", None)), result("1"), USER, calling(("b", None))]
    assert complete_ids([*messages, result("2")])[: len(messages)] == complete_ids(messages)


@pytest.mark.parametrize("missing", [{}, {"id": None}, {"id": ""}], ids=["missing", "null", "empty"])
async def test_requests_without_ids(missing: dict[str, Any]) -> None:
    """They are served without a word about unknown members; `strict` refuses them, as OpenAI does."""
    [call] = calling(("a", None))["tool_calls"]
    del call["id"]
    messages = [USER, {"role": "assistant", "tool_calls": [call | missing]}, result("1")]
    async with gateway(saying("Hi")) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post("/v1/chat/completions", json=ASK | {"messages": messages})
    assert response.status_code == 200
    assert "x-ignored-params" not in response.headers
    async with gateway(saying("Hi"), settings=Settings(access_log=False, strict=True)) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            response = await client.post("/v1/chat/completions", json=ASK | {"messages": messages})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "messages[1].tool_calls[0].id")
    assert error["code"] == "missing_required_parameter"


def test_a_result_without_an_id_is_refused_by_strict() -> None:
    body = ASK | {"messages": [USER, calling(("a", "x")), result("1")]}
    with pytest.raises(BadRequest) as caught:
        read_request(msgspec.json.encode(body), strict=True)
    assert caught.value.param == "messages[2].tool_call_id"
