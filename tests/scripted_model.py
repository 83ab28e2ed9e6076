"""Scripted model that calls tools, on the token lane: its prompt is rendered and its text parsed by the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from adapter.config import Settings
from subnet import Limits
from subnet.errors import NodeLost
from subnet.node_info import Capabilities
from subnet.protocols.mock import MockProtocol, Script, Step
from subnet.tensors import unpack
from subnet.wire.messages import Generate
from tests.fakes import gateway

MODEL = "mock"
TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call tools:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
Write each call as <tool_call>
{"name": ..., "arguments": ...}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ 'user' if message.role == 'tool' else message.role }}
{% if message.role == 'tool' %}<tool_response>
{{ message.content }}
</tool_response>
{%- else %}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}
{%- endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Chat template in the style of Qwen 2.5; the system message and the tools have a turn each."""


def call(name: str, **arguments: Any) -> str:
    """Return the text with which the model calls a tool."""
    written = msgspec.json.encode({"name": name, "arguments": arguments}).decode()
    return f"<tool_call>\n{written}\n</tool_call>"


class ScriptedModel:
    """Model whose text after a prompt is `answer(prompt)`; `prompts` are the rendered prompts of all requests.

    With `failing`, the node that begins an answer is lost halfway, so that the gateway continues it with another;
    `lost` counts these.
    """

    def __init__(self, answer: Callable[[str], str], *, failing: bool = False) -> None:
        self.prompts: list[str] = []
        self.lost = 0
        self._answer = answer
        self._failing = failing
        self.nodes = [_node(self._script, f"node-{number}") for number in range(3 if failing else 1)]

    def _script(self, request: Generate) -> Sequence[Step]:
        prompt = bytes(token for token in unpack(request.prompt) if token < 256).decode()
        self.prompts.append(prompt)
        text = self._answer(prompt).encode()
        if self._failing and not len(unpack(request.starts[0].delivered)):
            self.lost += 1
            return [*text[: len(text) // 2], NodeLost("gone")]
        return text


def _node(script: Script, peer: str) -> MockProtocol:
    return MockProtocol(
        script,
        peer=peer,
        model=MODEL,
        chat_template=TEMPLATE,
        context_length=1 << 20,
        capabilities=Capabilities(resume="exact", grammars=("json_schema", "lark")),
    )


def turns(*texts: str, without_tools: str = "A short title") -> Callable[[str], str]:
    """Answer with `texts` in order, one for each result of a tool. Requests without tools get `without_tools`, as
    agents also ask for titles and summaries.
    """

    def answer(prompt: str) -> str:
        if "<tools>" not in prompt:
            return without_tools
        return texts[min(prompt.count("<tool_response>\n"), len(texts) - 1)]

    return answer


@asynccontextmanager
async def serving(model: ScriptedModel) -> AsyncIterator[str]:
    """Run a gateway in front of the model, and yield its base URL."""
    async with gateway(*model.nodes, settings=Settings(access_log=False), limits=Limits()) as url:
        yield url + "/v1"
