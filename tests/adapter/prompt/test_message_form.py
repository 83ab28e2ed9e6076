"""Forms of messages that templates insist on, and that are found out by rendering."""

from __future__ import annotations

import re
from typing import Any

import pytest

from adapter.prompt import ChatTemplate
from adapter.prompt.message_form import MessageForm
from tests.adapter.prompt.test_prompt_tools import KNOWS_TOOLS

ID = "call_" + 24 * "a"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
}
QUESTION = {"role": "user", "content": "Hi"}
NINE = (
    "{% for m in messages if m.tool_call_id and m.tool_call_id | length != 9 %}{{ raise_exception('9') }}{% endfor %}"
)
SINGLE = "{% for m in messages if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endfor %}"
FILLED = (
    "{% for m in messages if m.role == 'assistant' and not m.content and not m.tool_calls %}"
    "{{ raise_exception('empty') }}{% endfor %}"
)
JOINED = (
    "{% for m in messages %}{% if m.tool_calls and m.content and m.reasoning_content %}"
    "{{ raise_exception('two') }}{% endif %}{% endfor %}{% for m in messages %}{{ m.reasoning_content }}{% endfor %}"
)
IDS = "{% for m in messages %}{{ m.tool_call_id }} {% endfor %}"
DESCRIBED = "{% for tool in tools or [] %}{{ '// ' + tool.function.description }}{% endfor %}"
PROPERTIES = (
    "{% for tool in tools or [] %}{% for name, value in tool.function.parameters.properties.items() %}"
    "{{ '# ' + value.description }}{% endfor %}{% endfor %}"
)


def calling(*names: str, **fields: Any) -> dict[str, Any]:
    calls = [
        {"id": f"{ID}{name}", "type": "function", "function": {"name": name, "arguments": {"a": name}}}
        for name in names
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls, **fields}


def result(name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"{ID}{name}", "content": f"result of {name}"}


def text(source: str, *messages: dict[str, Any]) -> str:
    return ChatTemplate(source).render([QUESTION, *messages, QUESTION], tools=[TOOL])


def test_short_ids() -> None:
    """Templates that take ids of nine characters get such, the same for a call and its result; others get ours."""
    rendered = text(NINE + KNOWS_TOOLS + IDS, calling("f", "g"), result("g"), result("f"), result("h"))
    assert re.findall(r"call\d{5}", rendered) == ["call00001", "call00000", "call00002"]
    assert f"{ID}f" in text(KNOWS_TOOLS + IDS, calling("f"), result("f"))


def test_one_call_in_a_message() -> None:
    """Templates that take one call in a message get each with its result."""
    rendered = text(SINGLE + KNOWS_TOOLS, calling("f", "g", content="Look:"), result("g"), result("f"), result("other"))
    assert rendered.splitlines()[2:6] == [
        'assistant: Look:f{"a": "f"}',
        "tool: result of f",
        'assistant: g{"a": "g"}',
        "tool: result of g",
    ]
    assert "tool: result of other" in rendered
    together = text(KNOWS_TOOLS, calling("f", "g"), result("f"), result("g"))
    assert 'assistant: f{"a": "f"}g{"a": "g"}\n' in together


def test_one_call_whose_result_is_missing() -> None:
    """Calls without a result are rendered all the same."""
    rendered = text(SINGLE + KNOWS_TOOLS, calling("f", "g"))
    assert 'assistant: f{"a": "f"}\nassistant: g{"a": "g"}\n' in rendered


def repeated(form: MessageForm) -> list[tuple[str, Any]]:
    """Return what `form` makes of two calls with one id and their results: ids of calls, and of results with texts."""
    call = {"id": "same", "type": "function", "function": {"name": "f", "arguments": {}}}
    results = [{"role": "tool", "tool_call_id": "same", "content": content} for content in ("1", "2", "3")]
    messages = form.adapt([{"role": "assistant", "content": "", "tool_calls": [call, call]}, *results])
    return [
        (m["tool_call_id"], m["content"]) if m["role"] == "tool" else ("", [each["id"] for each in m["tool_calls"]])
        for m in messages
    ]


def test_calls_with_one_id() -> None:
    """Servers and small models repeat ids: no result is lost, and results are in the order of the calls."""
    one = [("", ["same"]), ("same", "1"), ("", ["same"]), ("same", "2"), ("same", "3")]
    assert repeated(MessageForm(single_calls=True)) == one
    own = ["call00000", "call00001"]
    assert repeated(MessageForm(ids="short")) == [("", own), (own[0], "1"), (own[1], "2"), (own[1], "3")]


@pytest.mark.parametrize("content", ["", []])
def test_empty_answers(content: object) -> None:
    """Templates that reject an answer without text get a space; others get what there is."""
    assert "assistant:  \n" in text(FILLED + KNOWS_TOOLS, {"role": "assistant", "content": content})
    assert "assistant: \n" in text(KNOWS_TOOLS, {"role": "assistant", "content": ""})


def test_reasoning_and_text_before_calls() -> None:
    """Templates that take only one of them before a call get both as reasoning."""
    message = calling("f", content="I look.", reasoning_content="So.")
    assert "So.\n\nI look." in text(JOINED + KNOWS_TOOLS, message, result("f"))
    assert "assistant: I look." in text(KNOWS_TOOLS, message, result("f"))


@pytest.mark.parametrize(("source", "expected"), [(DESCRIBED, "// "), (PROPERTIES, "# ")])
def test_tools_without_descriptions(source: str, expected: str) -> None:
    """Templates that need descriptions get empty ones; others see no difference."""
    assert expected in text(source + KNOWS_TOOLS)
    assert "description" not in text(KNOWS_TOOLS)
    assert "description" not in TOOL["function"]
