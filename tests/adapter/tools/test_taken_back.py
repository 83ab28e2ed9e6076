"""Whatever the gateway emits is accepted in the next request, on both lanes and by every family of templates."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.chat.validation import read_request
from adapter.prompt import ChatTemplate
from adapter.prompt.render import render_conversation
from adapter.tools import ModelFormat
from tests.adapter.generation.test_model_format import GLM, HERMES, LISTED, LLAMA, THINK, written
from tests.adapter.prompt.test_prompt_tools import (
    ARGUMENTS_AS_TEXT,
    CHATML,
    ITERATES,
    KNOWS_TOOLS,
    NO_SYSTEM,
    PARTS,
    TOKENIZER,
)
from tests.adapter.tools.test_parsers import KINDS, MANGLED, TEXTS, TOOLS, WELL_FORMED
from tests.taken_back import (
    CLIENTS,
    MESSAGES,
    Json,
    conversation,
    emitted,
    read_on_token_lane,
    send_on_chat_lane,
)

_SOURCES = [
    *(written(call) for call in (HERMES, GLM, LLAMA, LISTED)),
    *(written(call, THINK, prompt="<think>\n") for call in (HERMES, GLM)),
    *(KNOWS_TOOLS, ARGUMENTS_AS_TEXT, ITERATES, CHATML, NO_SYSTEM, PARTS),
]
TEMPLATES = [ChatTemplate(source) for source in _SOURCES]
TEMPLATE = st.sampled_from(TEMPLATES)
CLIENT = st.sampled_from(CLIENTS)


def check(message: Json, template: ChatTemplate) -> None:
    """Check that a conversation with `message` is accepted on both lanes."""
    messages = conversation(message)
    prompt = render_conversation(read_on_token_lane(messages, TOOLS), template, TOKENIZER.guard)
    assert "And now?" in prompt.text
    sent: dict[str, Any] = msgspec.json.decode(send_on_chat_lane(messages, TOOLS))
    assert len(sent["messages"]) == len(messages)


@given(st.sampled_from(KINDS), TEXTS | WELL_FORMED | MANGLED, st.booleans(), st.booleans(), CLIENT, TEMPLATE)
def test_answers_of_models(
    kind: ModelFormat, text: str, opened: bool, cut: bool, client: Any, template: ChatTemplate
) -> None:
    """Any text that a model writes in any format becomes a message that can be sent back."""
    check(client(emitted(text, kind.parser(TOOLS, opened), cut=cut)), template)


@given(MESSAGES, CLIENT, TEMPLATE)
def test_answers_of_servers(message: Json, client: Any, template: ChatTemplate) -> None:
    """Any message of a server on the chat lane can be sent back, also to a model on the token lane."""
    check(client(message), template)


@pytest.mark.parametrize("client", CLIENTS)
def test_strict_gateways_take_them_too(client: Any) -> None:
    """With `strict`, messages with calls, reasoning and what servers add are accepted."""
    message = emitted("<think>so</think>Hi", KINDS[1].parser(TOOLS))
    text = '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>'
    calling = emitted(text, KINDS[0].parser(TOOLS)) | {"reasoning_details": [{"type": "x"}]}
    for each in (message, calling):
        body = {"model": "m", "messages": conversation(client(each))}
        assert read_request(msgspec.json.encode(body), strict=True).unknown == ()
