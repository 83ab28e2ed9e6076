"""Rendering of chat templates as model authors write them."""

from __future__ import annotations

from typing import Any

import pytest

from adapter.prompt import DEFAULT_TEMPLATE, ChatTemplate
from subnet.errors import InvalidRequest, SettingsError

# The template of SmolLM2-135M-Instruct, from its GGUF file.
SMOLLM2 = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

LLAMA3_STYLE = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- for message in messages %}
    {%- set header = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}
    {{- header + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""

QWEN_STYLE = """\
{%- if tools %}
    {{- '<|im_start|>system\\nTools:' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "assistant" and message.tool_calls %}
        {{- '<|im_start|>assistant' }}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content.split('</think>')[-1] + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}"""

MISTRAL_STYLE = """\
{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}
{% else %}
{{ message['content'] + eos_token }}
{% endif %}
{% endfor %}"""

PARTS_ONLY = """\
{%- for message in messages %}{{ message.role }}:
{%- for part in message.content %}{% if part.type == 'text' %}{{ part.text }};{% endif %}{% endfor %}
{%- endfor %}"""

BOTH = """\
{%- for message in messages %}
{%- if message.content is string %}{{ message.content }}
{%- else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}
{%- endfor %}"""

USER = {"role": "user", "content": "Hi"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}


def render(source: str, *messages: dict[str, Any], **given: Any) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(list(messages) or [USER], **given)


def test_smollm2() -> None:
    """The demo model's own template renders a default system message and the prompt for an answer."""
    assert render(SMOLLM2) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(SMOLLM2, {"role": "system", "content": "Be brief."}, add_generation_prompt=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
    )


def test_llama3_style() -> None:
    """A template in the style of Llama 3 renders the BOS token, trimmed content, `set` and `strftime_now`."""
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert render(LLAMA3_STYLE, {"role": "user", "content": " Hi\n"}) == (
        "<s>" + header.format("user") + "Hi<|eot_id|>" + header.format("assistant")
    )


def test_qwen_style_tools() -> None:
    """tojson keeps non-ASCII and HTML characters and the order of keys, as in templates in the style of Qwen."""
    tool = {"type": "function", "function": {"name": "größe", "description": "<a> & 'b'"}}
    call = {"type": "function", "function": {"name": "größe", "arguments": {"z": 1, "a": None}}}
    text = render(QWEN_STYLE, {"role": "assistant", "tool_calls": [call]}, tools=[tool])
    assert text == (
        "<|im_start|>system\nTools:\n"
        '{"type": "function", "function": {"name": "größe", "description": "<a> & \'b\'"}}<|im_end|>\n'
        "<|im_start|>assistant\n<tool_call>\n"
        '{"name": "größe", "arguments": {"z": 1, "a": null}}\n</tool_call><|im_end|>\n'
    )


def test_mistral_style() -> None:
    """Template lines with only a block statement leave no blank lines."""
    text = render(MISTRAL_STYLE, USER, {"role": "assistant", "content": "Yo"})
    assert text == "<s>[INST] Hi [/INST]\nYo</s>\n"


def test_raise_exception() -> None:
    """raise_exception in a template raises InvalidRequest with the template's message."""
    with pytest.raises(InvalidRequest, match="must alternate user/assistant") as caught:
        render(MISTRAL_STYLE, USER, USER)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content + 1 }}",
        "{{ messages[0].nothing.more }}",
        "{{ messages[0].__class__.__mro__ }}",
        "{{ messages.clear() }}",
        "{{ messages[0].update(role='system') }}",
        "{{ messages[0].get | tojson }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{{ 9 ** 9 ** 9 }}",
    ],
)
def test_errors_in_a_template(source: str) -> None:
    """Type errors and sandbox violations in a template raise InvalidRequest."""
    with pytest.raises(InvalidRequest):
        render(source)


def test_messages_nested_too_deep() -> None:
    """JSON that is nested too deeply for a template raises InvalidRequest."""
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidRequest):
        render("{{ tools | tojson }}", tools=value)


def test_a_template_that_does_not_compile() -> None:
    """A template with a syntax error raises a SettingsError that names the line."""
    with pytest.raises(SettingsError, match=r"does not compile \(line 2\)"):
        ChatTemplate("{{ 1 }}\n{% if %}")


def test_users_text_is_not_a_template() -> None:
    """Jinja syntax in messages is rendered as text."""
    assert "{{ 7 * 7 }}{% x %}" in render(SMOLLM2, {"role": "user", "content": "{{ 7 * 7 }}{% x %}"})


def test_extensions_of_jinja() -> None:
    """Templates may use loop controls, generation blocks, options of tojson, and variables of the request."""
    source = (
        "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}"
        "{% endfor %}{% generation %}said{% endgeneration %}"
        "{{ {'b': 'é', 'a': 1} | tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }}"
        "{{ [1] | tojson(indent=1) }}{{ strftime_now('%Y') | length }}{{ enable_thinking }}"
    )
    assert render(source, variables={"enable_thinking": False}) == '02said{"a":1,"b":"\\u00e9"}[\n 1\n]4False'


def test_content_as_strings() -> None:
    """For a template that expects strings, text parts are joined by line feeds."""
    assert "user\none\ntwo<|im_end|>" in render(SMOLLM2, PARTS)


def test_content_as_parts() -> None:
    """For a template that expects parts, a string becomes one text part."""
    assert render(PARTS_ONLY, USER, PARTS) == "user:Hi;user:one;two;"


def test_content_as_strings_or_parts() -> None:
    """A template that accepts strings and parts gets several parts as they are, and joins them in its way."""
    assert render(BOTH, USER, PARTS) == "Hionetwo"
    one = {"role": "user", "content": [{"type": "text", "text": "one"}]}
    assert render("{{ messages[0].content is string }}" + BOTH, one) == "Trueone"


def test_parts_of_some_roles() -> None:
    """A template that takes parts from users only gets the texts of other roles joined."""
    source = BOTH.replace("is string", "is string or message.role == 'system'")
    system = {**PARTS, "role": "system"}
    assert render(source, system, PARTS) == "one\ntwoonetwo"


def test_a_template_that_prints_any_content() -> None:
    """A template that prints content of any type gets strings."""
    assert render("{% for m in messages %}{{ m.content }}{% endfor %}", PARTS) == "one\ntwo"
    assert '"content": "one\\ntwo"' in render("{{ messages | tojson }}", PARTS)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ m.reasoning_content }}", "[why]"),
        ("{{ m.thinking }}", "[why]"),
        ("{{ m.reasoning }}", "[why]"),
        ("{% if thinking %}{{ m.thinking }}{% endif %}", "[why]"),
        ("{% for p in m.content if p is mapping %}{{ p.thinking }}{% endfor %}", "[why]"),
        ("{% if m.tool_calls %}{{ m.thinking }}{% endif %}", "[]"),
        ("{{ m.content }}{{ m.tool_calls }}", "[x]"),
    ],
)
def test_reasoning_under_the_name_of_the_template(source: str, expected: str) -> None:
    """Earlier reasoning reaches the template in the field or the part that it reads."""
    template = "{% for m in messages if m.role == 'assistant' %}[" + source + "]{% endfor %}"
    said = {"role": "assistant", "content": "x", "reasoning_content": "why"}
    assert render(template, USER, said, variables={"thinking": True}) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{% for tool in tools %}{{ tool }}{% endfor %}",
        "{% if tools is defined and tools | length > 0 %}{{ tools[0].name }}{% endif %}",
        "{% if tools is none %}{{ raise_exception('no tools') }}{% endif %}",
        "{{ (tools + [1]) | length * '' }}",
    ],
)
def test_templates_that_need_tools(source: str) -> None:
    """A template that reads `tools` without asking whether there are any renders without them."""
    assert render(source + "{{ messages[0].content }}") == "Hi"


def test_tools_after_a_system_message() -> None:
    """A template that shows tools only after a system message gets an empty one."""
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}<{{ m.content }}>{{ tools | tojson if tools }}"
        "{% else %}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}{% endif %}{% endfor %}"
    )
    assert render(source, tools=[{"name": "f"}]) == '<>[{"name": "f"}]Hi'
    assert render(source) == "Hi"


def test_ids_that_name_the_function() -> None:
    """A template that shows only the ids of calls gets ids with the names of their functions."""
    source = (
        "{{ tools | tojson if tools }}{% for m in messages %}{{ m.tool_call_id }}{{ m.content }}"
        "{% for c in m.tool_calls %}{{ c.id }}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    )
    calls = [{"id": key, "function": {"name": key * 2, "arguments": {"x": 1}}} for key in "ab"]
    said = {"role": "assistant", "content": "", "tool_calls": calls}
    result = {"role": "tool", "tool_call_id": "b", "content": "!"}
    assert render(source, USER, said, result) == 'Hifunctions.aa:0{"x": 1}functions.bb:1{"x": 1}functions.bb:1!'


def test_arguments_that_a_template_would_write_as_python() -> None:
    """A template that prints arguments gets them as JSON; one that encodes them itself gets objects."""
    source = "{{ tools | tojson if tools }}{% for m in messages %}{{ m.content }}{{ m.tool_calls[0].function.arguments"
    said = {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]}
    said["tool_calls"][0]["function"]["arguments"] = {"x": "y"}  # type: ignore[index]
    assert render(source + " if m.tool_calls }}{% endfor %}", USER, said) == 'Hi{"x": "y"}'
    assert render(source + " | tojson if m.tool_calls }}{% endfor %}", USER, said) == 'Hi{"x": "y"}'


def test_a_template_of_firefunction() -> None:
    """The variables `functions` and `datetime`, which stand for tools in an old family, are set."""
    source = "{{ functions }}{{ datetime | length > 9 }}{{ messages[0].content }}"
    assert render(source) == "TrueHi"


def test_filters_of_other_servers() -> None:
    """Filters and functions that templates for other servers use are there."""
    source = (
        "{% set l = [] %}{% set _ = l.append(('[1]' | fromjson)[0]) %}{{ l.pop() + ('2' | from_json) }}"
        "{{ dict(a=1) | tojson }}{{ dict.fromkeys([3]) }}{{ [{'a': 1}] | map(attribute='a') | tojson }}"
    )
    assert render(source) == '3{"a": 1}{3: None}[1]'


def test_developer_messages() -> None:
    """Developer messages are rendered as system messages unless the template supports them; the caller's messages are
    not modified.
    """
    message = {"role": "developer", "content": "Be brief."}
    assert render("{{ messages[0].role }}", message) == "system"
    assert render("{{ messages[0].role }}{# developer #}", message) == "developer"
    assert message["role"] == "developer"


def test_the_default_template() -> None:
    """The default template is plain text with role names, and ends with the prompt for an answer."""
    system = {"role": "system", "content": "Be brief."}
    assert render(DEFAULT_TEMPLATE, system, USER) == "System: Be brief.\nUser: Hi\nAssistant:"
    assert render(DEFAULT_TEMPLATE, USER, add_generation_prompt=False) == "User: Hi\n"
