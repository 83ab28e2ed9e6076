"""The format of tool calls and reasoning: the one that reads back what the template writes, or the one that is set."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from adapter.config import Settings
from adapter.generation.model_format import FoundFormat, find_format
from adapter.prompt import ChatTemplate
from subnet.errors import SettingsError
from subnet.tensors import unpack
from tests.adapter.prompt.test_prompt_tools import CHATML
from tests.fakes import ASK, gateway, saying

HERMES = '<tool_call>\n{"name": "{{ name }}", "arguments": {{ args | tojson }}}\n</tool_call>'
GLM = (
    "<tool_call>{{ name }}\n{% for key, value in args.items() %}<arg_key>{{ key }}</arg_key>\n"
    "<arg_value>{{ value if value is string else value | tojson }}</arg_value>\n{% endfor %}</tool_call>"
)
LLAMA = '{"name": "{{ name }}", "parameters": {{ args | tojson }}}'
OWN = "<{{ name }}>{{ args | tojson }}</{{ name }}>"
UNESCAPED = HERMES.replace("| tojson", "| string | replace(\"'\", '\"')")
FIRST_ONLY = "{% if loop.first %}" + HERMES + "{% endif %}"
LISTED = "{{ '[' if loop.first }}" + LLAMA + "{{ ']' if loop.last else ', ' }}"
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{{ '' }}{% endfor %}{% endfor %}"

THINK = "<think>\n{{ m.reasoning_content }}\n</think>\n\n"
OWN_THOUGHTS = "(thoughts: {{ m.reasoning_content }})"
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def written(call: str, reasoning: str = "", *, content: str = "{{ m.content }}", prompt: str = "") -> str:
    """Return a template that writes calls and reasoning as given."""
    thoughts = "{% if m.reasoning_content %}" + reasoning + "{% endif %}" if reasoning else ""
    return (
        "{% if tools %}<|system|>{{ tools | tojson }}<|end|>\n{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>\n" + thoughts + content + "{% for call in m.tool_calls or [] %}"
        "{% set name = call.function.name %}{% set args = call.function.arguments %}" + call + "{% endfor %}<|end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n" + prompt + "{% endif %}"
    )


def found(source: str, setting: str | None = None) -> FoundFormat:
    return find_format(ChatTemplate(source), setting, ["<|end|>", "<|user|>", "<|assistant|>"])


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (HERMES, "hermes"),
        ("{# <|python_tag|> [TOOL_CALLS] #}" + HERMES, "hermes"),
        (GLM, "glm"),
        ("{# <|python_tag|> #}" + GLM, "glm"),
        (LLAMA, "llama3_json"),
        (LISTED, "llama3_json"),
        (UNESCAPED, "hermes"),
        (FIRST_ONLY, "hermes"),
        (HERMES.replace("}}}", "}}} "), "hermes"),
    ],
)
def test_calls_that_are_read_back(call: str, expected: str) -> None:
    """The format is the one that reads the template's own calls, whatever other marks the template has."""
    result = found(written(call))
    assert (result.tools, result.format.tool_format and result.format.tool_format.name) == (expected, expected)
    assert result.template.supports_tools
    assert not result.problems


@pytest.mark.parametrize("call", [OWN, HERMES.replace("name }}", "name }}2")])
def test_calls_that_nothing_reads(call: str) -> None:
    """If no format reads back exactly what was called, the format is unknown, and tools become text."""
    result = found(written(call + "{# <tool_call> #}"))
    assert result.tools == "unknown"
    assert result.format.tool_format is not None
    assert result.format.tool_format.name == "hermes"
    assert not result.template.supports_tools
    assert not result.refuses_tools
    (problem,) = result.problems
    assert "tools are explained to it in its messages" in problem


def test_calls_that_cannot_be_text_either() -> None:
    """If the template does not render calls as text, tools are refused."""
    result = found(written(OWN, content="{{ m.content if m.role != 'assistant' }}"))
    assert (result.tools, result.refuses_tools, result.format.tool_format) == ("unknown", True, None)
    assert result.template.supports_tools


def test_templates_without_tools() -> None:
    """A template without tools gets them as text, in a format that is known."""
    result = found(CHATML + "{# <|python_tag|> #}")
    assert (result.tools, result.template.supports_tools, result.problems) == ("hermes", False, [])
    harmony = found(CHATML + "{# <|channel|> <|message|> #}")
    assert (harmony.tools, harmony.reasoning) == ("harmony", None)


@pytest.mark.parametrize(
    ("reasoning", "prompt", "expected"),
    [
        (THINK, "", "think"),
        (THINK, "<think>\n", "think"),
        (THINK, "<think>\n\n</think>\n\n", "think"),
        ("[THINK]{{ m.reasoning_content }}[/THINK]{# <think> #}", "", "mistral"),
        (OWN_THOUGHTS, "", "unknown"),
        ("{# <think> #}" + OWN_THOUGHTS, "", "unknown"),
        ("", "<think>\n", "think"),
        ("", "{% if enable_thinking %}<seed:think>{% endif %}{# <think> #}", "seed"),
        ("", "{# content.split('</think>') #}", "think"),
        ("", "", None),
    ],
)
def test_reasoning_that_is_read_back(reasoning: str, prompt: str, expected: str | None) -> None:
    """The tags of reasoning are those that read the template's own, or that its prompt opens."""
    result = found(written(HERMES, reasoning, prompt=prompt))
    assert result.reasoning == expected
    assert result.tools == "hermes"
    assert bool(result.problems) is (expected == "unknown")
    tags = result.format.tags
    assert (tags and tags.name) == (None if expected == "unknown" else expected)


def test_reasoning_before_calls() -> None:
    """A template that keeps reasoning only before calls shows its tags there."""
    source = written(HERMES, "{% if m.tool_calls %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}{# <think> #}")
    assert found(source).reasoning == "mistral"


@pytest.mark.parametrize(
    ("setting", "calls", "tags"),
    [
        ("glm", "glm", "think"),
        ("glm/none", "glm", None),
        ("none/seed", None, "seed"),
        ("hermes/think", "hermes", "think"),
    ],
)
def test_formats_that_are_set(setting: str, calls: str | None, tags: str | None) -> None:
    """The operator's setting decides, whatever the template writes; reasoning that is not set is found."""
    result = found(written(OWN, THINK), setting)
    assert (result.tools, result.reasoning, result.problems) == (calls, tags, [])
    assert result.template.supports_tools


CALLED = [
    *ASK["messages"],
    {
        "role": "assistant",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "!"},
]


@pytest.mark.parametrize(("call", "chosen", "expected"), [(HERMES, True, "hermes"), (OWN, False, "glm")])
async def test_a_template_for_tools(call: str, chosen: bool, expected: str) -> None:
    """A template of its own for tools is used where there are tools, calls or results, unless its format is unknown."""
    node = saying("Hi", chat_template=written(GLM, THINK), tool_template="own" + written(call))
    async with gateway(node) as url, httpx.AsyncClient(base_url=url) as client:
        for request in ({**ASK, "tools": [TOOL]}, {**ASK, "messages": CALLED}, ASK):
            await client.post("/v1/chat/completions", json=request)
        (model,) = (await client.get("/v1/models")).json()["data"]
    starts = ["".join(map(chr, unpack(request.prompt)[:3])) for request in node.requests]
    assert [start == "own" for start in starts] == [chosen, chosen, False]
    assert (model["tool_format"], model["reasoning"]) == (expected, "think")


def test_a_template_that_never_ends() -> None:
    """A template that exceeds its budget when its format is probed is refused."""
    template = ChatTemplate(
        written(HERMES) + "{% if 'probed reasoning' in messages | string %}" + ENDLESS + "{% endif %}"
    )
    with pytest.raises(SettingsError, match="too much time or memory"):
        find_format(template)


@pytest.fixture(name="refused")
def template_that_refuses_tools() -> str:
    return written(OWN, OWN_THOUGHTS, content="{{ m.content if m.role != 'assistant' }}")


async def test_unknown_formats_are_said(refused: str, caplog: pytest.LogCaptureFixture) -> None:
    """An unknown format is in /v1/models, in /nodes and in one line of the log, and tools get a 400 that names the
    setting.
    """
    async with gateway(saying("Hi", chat_template=refused)) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(2):
            answer = await client.post("/v1/chat/completions", json={**ASK, "tools": [TOOL]})
            assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "tools", "unsupported_value")
        assert "'tool_format'" in error["message"]
        for allowed in (ASK, {**ASK, "tools": [TOOL], "tool_choice": "none"}):
            answer = await client.post("/v1/chat/completions", json=allowed)
            assert answer.json()["choices"][0]["message"]["content"] == "Hi"
        (model,) = (await client.get("/v1/models")).json()["data"]
        (node,) = (await client.get("/nodes")).json()["nodes"]
    for row in (model, node["deployments"][0]):
        assert (row["tool_format"], row["reasoning"]) == ("unknown", "unknown")
    (line,) = [message for message in caplog.messages if "tool_format" in message]
    assert line.startswith("model 'mock': it is unknown how it writes tool calls, so requests with tools are refused; ")


async def test_a_format_that_the_operator_names(refused: str) -> None:
    """With the setting tool_format, tools are passed to the template, and calls are read in that format."""
    node = saying('<tool_call>{"name": "f", "arguments": {"x": 1}}', chat_template=refused)
    settings = Settings(access_log=False, tool_format=("mock=hermes/none",))
    async with gateway(node, settings=settings) as url, httpx.AsyncClient(base_url=url) as client:
        answer = (await client.post("/v1/chat/completions", json={**ASK, "tools": [TOOL]})).json()
        (model,) = (await client.get("/v1/models")).json()["data"]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert (model["tool_format"], model["reasoning"]) == ("hermes", None)
