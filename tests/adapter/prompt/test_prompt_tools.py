"""Prompts with tools, documents, template variables and continued messages."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.conversation.request import ChatCompletionRequest
from adapter.api.conversation.translate import generation_request
from adapter.prompt import ChatTemplate, Conversation, Prompt, custom_template, load_tokenizer, render_conversation
from subnet.errors import InvalidRequest
from subnet.node_info import TokenizerArtefact

CONTROL = ["<|im_start|>", "<|im_end|>", "</s>"]
TOKENIZER = load_tokenizer(
    TokenizerArtefact(
        pieces=[*(bytes([value]) for value in range(256)), *(text.encode() for text in CONTROL)],
        control=list(range(256, 259)),
        pattern=r"\p{L}+|[^\p{L}]+",
        merges=list(range(256)),
    )
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for message in messages %}"
    "{% if message.role not in ('user', 'assistant') %}{{ raise_exception('no such role') }}{% endif %}"
    "[{{ message.role }}] {{ message.content | trim }}</s>{% endfor %}"
)
PARTS = (
    "{% for message in messages %}[{{ message.role }}]"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endfor %}"
)
KNOWS_TOOLS = (
    "{% for tool in tools or [] %}{{ tool.function.name }}: {{ tool.function.parameters | tojson }}\n{% endfor %}"
    "{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call.function.name }}{{ call.function.arguments | tojson }}"
    "{% endfor %}{{ '\n' }}{% endfor %}"
)
ARGUMENTS_AS_TEXT = KNOWS_TOOLS.replace("{{ call.function.arguments | tojson }}", "{{ '=' + call.function.arguments }}")
ITERATES = KNOWS_TOOLS.replace(
    "{{ call.function.arguments | tojson }}",
    "{% for key, value in call.function.arguments.items() %}<{{ key }}>{{ value }}{% endfor %}",
)
THINKING = CHATML.replace("assistant\n{% endif", "assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif")
KNOWS_ALL = (
    "{{ reasoning_effort }} {{ verbosity }} {{ enable_thinking }} {{ custom | tojson }}"
    "{% for document in documents %}{{ document | tojson }}{% endfor %}{{ messages[0].content }}"
)

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}},
}
QUESTION = {"role": "user", "content": "Hi"}
CALLED = [
    QUESTION,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}},
            {"id": "2", "type": "function", "function": {"name": "time", "arguments": "{broken"}},
        ],
    },
    {"role": "tool", "tool_call_id": "2", "content": "noon"},
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "warm"}]},
]


def written(source: str, **fields: Any) -> Prompt:
    request = msgspec.convert({"model": "m", "messages": [QUESTION]} | fields, ChatCompletionRequest)
    return render_conversation(generation_request(request).conversation, ChatTemplate(source), TOKENIZER.guard)


def text(source: str, **fields: Any) -> str:
    return written(source, **fields).text


def refusal(source: str, **fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        written(source, **fields)
    return caught.value.param


def test_a_template_that_supports_tools() -> None:
    """A template that supports tools renders tools, calls and results itself."""
    assert ChatTemplate(KNOWS_TOOLS).supports_tools
    assert text(KNOWS_TOOLS, messages=CALLED, tools=[TOOL]) == (
        'weather: {"type": "object", "properties": {}}\n'
        'user: Hi\nassistant: weather{"city": "x"}time{}\ntool: noon\ntool: warm\n'
    )


def test_a_template_that_wants_arguments_as_text() -> None:
    """A template that expects arguments as text gets them as JSON."""
    assert ChatTemplate(ARGUMENTS_AS_TEXT).supports_tools
    assert 'assistant: weather={"city": "x"}time={broken\n' in text(ARGUMENTS_AS_TEXT, messages=CALLED)


@pytest.mark.parametrize("arguments", ["", " ", "{broken", "[1]", "null", '"x"'])
@pytest.mark.parametrize("source", [KNOWS_TOOLS, ITERATES, ARGUMENTS_AS_TEXT, CHATML])
def test_arguments_that_are_no_object(source: str, arguments: str) -> None:
    """A conversation goes on after a call whose arguments are empty or cut off, and never shows empty ones."""
    function = {"name": "time", "arguments": arguments}
    said = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    found = text(source, messages=[QUESTION, said])
    assert "time" in found
    if not arguments.strip():
        assert json.dumps(arguments) not in found


def test_a_template_without_tools() -> None:
    """For a template without tool support, tools are described in the system message, and calls and results in
    messages.
    """
    assert not ChatTemplate(CHATML).supports_tools
    found = text(CHATML, messages=[{"role": "system", "content": "Be brief."}, *CALLED], tools=[TOOL])
    system, user, assistant, results, end = found.split("<|im_end|>\n")
    assert system.startswith("<|im_start|>system\nBe brief.\n\n")
    assert json.loads(system.split("<tools>\n")[1].split("\n</tools>")[0]) == TOOL
    assert user == "<|im_start|>user\nHi"
    assert assistant == (
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "x"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "time", "arguments": "{broken"}\n</tool_call>'
    )
    assert results == (
        '<|im_start|>user\n<tool_response>\n{"name": "time", "content": "noon"}\n</tool_response>\n'
        '<tool_response>\n{"name": "weather", "content": "warm"}\n</tool_response>'
    )
    assert end == "<|im_start|>assistant\n"


def test_tools_without_a_system_message() -> None:
    """Tools are described in a new system message, or in the first user message if the template has no system role."""
    assert text(CHATML, tools=[TOOL]).startswith("<|im_start|>system\nYou may call functions")
    found = text(NO_SYSTEM, tools=[TOOL])
    assert found.startswith("[user] You may call functions")
    assert found.endswith("</tool_call>\n\nHi</s>")
    assert refusal(NO_SYSTEM, tools=[TOOL], messages=[{"role": "assistant", "content": "x"}]) == "messages"


def test_tools_for_a_template_of_parts() -> None:
    """For a template that expects parts, the description of tools and the results become text parts."""
    found = text(PARTS, messages=CALLED, tools=[TOOL])
    assert found.startswith("[system]You may call functions")
    assert '[user]<tool_response>\n{"name": "time"' in found


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", []),
        ("auto", ["a", "b"]),
        ("required", ["a", "b"]),
        ({"type": "function", "function": {"name": "b"}}, ["b"]),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "a"}}]},
            },
            ["a"],
        ),
    ],
)
def test_only_tools_that_may_be_called_are_shown(choice: object, names: list[str]) -> None:
    """Only tools that tool_choice allows are in the prompt; missing parameters are an empty object schema."""
    tools = [{"type": "function", "function": {"name": name, "strict": True}} for name in ("a", "b")]
    expected = [f'{name}: {{"type": "object", "properties": {{}}}}' for name in names]
    assert text(KNOWS_TOOLS, tools=tools, tool_choice=choice).splitlines()[:-1] == expected


def test_reasoning_in_the_history() -> None:
    """Reasoning in the history is rendered as reasoning_content, whichever of the two names the client used."""
    source = "{% for message in messages %}{{ message.reasoning_content }}{% endfor %}"
    for name in ("reasoning_content", "reasoning"):
        assert text(source, messages=[{"role": "assistant", "content": "x", name: "so"}]) == "so"


def test_template_variables() -> None:
    """Effort, verbosity, documents and chat_template_kwargs are passed to a template that uses them."""
    found = text(
        KNOWS_ALL,
        reasoning_effort="none",
        verbosity="low",
        documents=[{"title": "t", "text": "x"}],
        chat_template_kwargs={"custom": {"a": [1]}},
    )
    assert found == 'none low False {"a": [1]}{"title": "t", "text": "x"}Hi'
    assert text(KNOWS_ALL, reasoning_effort="high", chat_template_kwargs={"enable_thinking": False, "custom": 1}) == (
        "high  False 1Hi"
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"documents": [{"text": "x"}]}, "documents"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": {"eos_token": "x"}}, "chat_template_kwargs.eos_token"),
    ],
)
def test_unsupported_variables_are_rejected(fields: dict[str, Any], param: str) -> None:
    """Effort, verbosity, documents or variables that the template does not use are rejected by name."""
    assert refusal(CHATML, **fields) == param


def test_default_effort_and_verbosity() -> None:
    """reasoning_effort "none" and verbosity "medium" are accepted for any template."""
    assert text(CHATML, reasoning_effort="none", verbosity="medium") == text(CHATML)


def test_reasoning_that_the_template_opens() -> None:
    """A prompt reports whether the template opened the reasoning, ignoring tags in users' text."""
    assert written(THINKING, reasoning_effort="low").starts_in_reasoning("<think>", "</think>")
    assert not written(THINKING, reasoning_effort="none").starts_in_reasoning("<think>", "</think>")
    said = [{"role": "user", "content": "what is <think>"}]
    assert not written(CHATML, messages=said).starts_in_reasoning("<think>", "</think>")
    bare = "{% for message in messages %}{{ message.content }}{% endfor %}"
    assert not written(bare, messages=said, add_generation_prompt=False).starts_in_reasoning("<think>", "</think>")


@pytest.mark.parametrize(
    ("content", "opened"), [("Once ", False), ("<think>so ", True), ("<think>so</think> I", False), ("", False)]
)
def test_a_continued_message(content: str, opened: bool) -> None:
    """A continued message is rendered without an end, to the last space, and may leave the reasoning open."""
    messages = [QUESTION, {"role": "assistant", "content": content}]
    found = written(CHATML, messages=messages, continue_final_message=True, add_generation_prompt=False)
    assert found.text == f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{content}"
    assert found.starts_in_reasoning("<think>", "</think>") is opened
    assert text(PARTS, messages=messages, continue_final_message=True) == f"[user]Hi[assistant]{content}"
    assert text(NO_SYSTEM, messages=messages, continue_final_message=True) == f"[user] Hi</s>[assistant] {content}"


@pytest.mark.parametrize(
    ("source", "fields", "param"),
    [
        (CHATML, {"messages": [QUESTION]}, "continue_final_message"),
        (CHATML, {"messages": CALLED[:2]}, "continue_final_message"),
        (CHATML, {"add_generation_prompt": True}, "continue_final_message"),
        ("{{ messages[0].content }}", {}, "messages"),
    ],
)
def test_messages_that_cannot_be_continued(source: str, fields: dict[str, Any], param: str) -> None:
    """Only a final assistant message with text can be continued, without a generation prompt, by a template that shows
    it.
    """
    messages = [QUESTION, {"role": "assistant", "content": "x"}]
    assert refusal(source, **{"messages": messages, "continue_final_message": True} | fields) == param


def test_no_generation_prompt() -> None:
    """Without add_generation_prompt the prompt ends after the messages."""
    assert text(CHATML, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"


def test_a_custom_template() -> None:
    """A request's own template is used only if the operator allows it, it compiles and is not too long."""
    assert custom_template("{{ bos_token }}{{ messages[0].content }}", True, "<s>").render([QUESTION]) == "<s>Hi"
    for source, permitted in (("x", False), ("{% if %}", True), ("x" * 100_000, True)):
        with pytest.raises(InvalidRequest) as caught:
            custom_template(source, permitted)
        assert caught.value.param == "chat_template"


HOSTILE = st.lists(st.sampled_from([*CONTROL, "<|im_", "end|>", "<", ">", "x"]), min_size=1, max_size=4).map("".join)


@pytest.mark.parametrize("source", [CHATML, KNOWS_TOOLS, ARGUMENTS_AS_TEXT, KNOWS_ALL])
@given(hostile=HOSTILE)
def test_client_text_never_becomes_a_control_token(source: str, hostile: str) -> None:
    """Text of a client in tools, arguments, results, documents, variables or a continued message never becomes a
    control token.
    """
    template = ChatTemplate(source)
    given = Conversation(
        messages=[
            {"role": "user", "content": hostile},
            {
                "role": "assistant",
                "content": hostile,
                "tool_calls": [{"id": hostile, "function": {"name": hostile, "arguments": {hostile: [hostile]}}}],
            },
            {"role": "tool", "tool_call_id": hostile, "content": hostile},
            {"role": "assistant", "content": hostile},
        ],
        tools=[{"type": "function", "function": {"name": "f", "description": hostile, "parameters": {hostile: 1}}}],
        documents=[{hostile: hostile}] if "documents" in template.variables else [],
        chat_template_kwargs={"custom": {hostile: hostile}},
        continue_final_message="messages[0]" not in source,
    )
    prompt = render_conversation(given, template, TOKENIZER.guard)
    tokens = [int(token) for token in TOKENIZER.encode_prompt(prompt.marked, prompt.mark)]
    expected = 2 * 5 - 1 if source is CHATML else 0
    assert sum(token in TOKENIZER.control for token in tokens) == expected
    assert bytes(token for token in tokens if token < 256).count(hostile.encode()) >= 1


def test_templates_that_change_lists() -> None:
    """What a template appends to is a copy: neither the request nor the next prompt changes."""
    source = (
        "{% if tools is none %}{{ raise_exception('no tools') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}{% for t in tools %} and {{ t }}{% endfor %}"
        "{% set own = [1] %}{% if own.append(2) %}{% endif %} {{ own | length }}"
        "{% if tools.append(messages[0].content) %}{% endif %}{% if messages.append(messages[0]) %}{% endif %}"
    )
    template = ChatTemplate(source)
    for text in ("one", "two"):
        messages = [{"role": "user", "content": text}]
        assert template.render(messages) == f"{text} 2"
        assert len(messages) == 1


@pytest.mark.parametrize("call", ["messages['app' ~ 'end'](1)", "(messages | attr('app' ~ 'end'))(1)"])
def test_lists_that_are_changed_in_a_roundabout_way(call: str) -> None:
    """A template that hides that it changes lists may not."""
    with pytest.raises(InvalidRequest, match="rejected"):
        ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}{{ " + call + " }}").render([QUESTION])
