"""The same conversation in either dialect is the same request for a model."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from adapter.api.chat.validation import read_request
from adapter.api.conversation.body import chat_body
from adapter.api.conversation.translate import generation_request
from adapter.api.messages.translate import translate
from adapter.api.messages.validation import read_messages
from adapter.prompt.message_form import MessageForm

TEXT = st.text(min_size=1, max_size=8).filter(lambda text: not text.isspace())
TEXTS = st.lists(TEXT, min_size=1, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
INPUT = st.dictionaries(TEXT, JSON, max_size=3)
Turn = tuple[list[str], list[tuple[dict[str, Any], str]], str]
TURNS = st.lists(st.tuples(TEXTS, st.lists(st.tuples(INPUT, TEXT), max_size=2), TEXT), min_size=1, max_size=3)


def blocks(texts: list[str]) -> list[Any]:
    return [{"type": "text", "text": text} for text in texts]


def content(texts: list[str]) -> Any:
    return texts[0] if len(texts) == 1 else blocks(texts)


def theirs(turns: list[Turn]) -> list[Any]:
    """Return a conversation in Anthropic's dialect: of each turn the question, calls with results, and the answer."""
    messages: list[Any] = []
    for number, (question, calls, answer) in enumerate(turns):
        messages.append({"role": "user", "content": blocks(question)})
        if calls:
            used = [
                {"type": "tool_use", "id": f"{number}_{index}", "name": "look", "input": given}
                for index, (given, _) in enumerate(calls)
            ]
            results = [
                {"type": "tool_result", "tool_use_id": f"{number}_{index}", "content": result}
                for index, (_, result) in enumerate(calls)
            ]
            messages += [{"role": "assistant", "content": used}, {"role": "user", "content": results}]
        messages.append({"role": "assistant", "content": answer})
    return [*messages, {"role": "user", "content": "And?"}]


def ours(turns: list[Turn]) -> list[Any]:
    """Return the same conversation as a chat completion has it."""
    messages: list[Any] = []
    for number, (question, calls, answer) in enumerate(turns):
        messages.append({"role": "user", "content": content(question)})
        if calls:
            made = [
                {
                    "id": f"{number}_{index}",
                    "type": "function",
                    "function": {"name": "look", "arguments": json.dumps(given)},
                }
                for index, (given, _) in enumerate(calls)
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": made})
            messages += [
                {"role": "tool", "tool_call_id": f"{number}_{index}", "content": result}
                for index, (_, result) in enumerate(calls)
            ]
        messages.append({"role": "assistant", "content": answer})
    return [*messages, {"role": "user", "content": "And?"}]


@given(TURNS, TEXTS, st.sampled_from(["auto", "any", "none", "look"]))
def test_the_same_conversation(turns: list[Turn], system: list[str], choice: str) -> None:
    """Prompt, tools, their choice and sampling are those of the chat completion, and so is the body for a server."""
    schema = {"type": "object", "properties": {"x": {"const": None}}}
    chosen: Any = {"type": "tool", "name": choice} if choice == "look" else {"type": choice}
    named: Any = {"type": "function", "function": {"name": "look"}}
    message = {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "stop_sequences": ["a"],
        "system": blocks(system),
        "messages": theirs(turns),
        "tools": [{"name": "look", "input_schema": schema}],
        "tool_choice": chosen,
    }
    chat = {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "stop": ["a"],
        "messages": [{"role": "system", "content": content(system)}, *ours(turns)],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": schema}}],
        "tool_choice": {"any": "required", "none": "none", "look": named}.get(choice),
    }
    translated = translate(read_messages(msgspec.json.encode(message)).request)
    parsed = read_request(msgspec.json.encode(chat)).request
    first, second = (generation_request(each) for each in (translated.request, parsed))
    for each in (first, second):
        form = MessageForm().adapt(each.conversation.messages)
        msgspec.structs.force_setattr(each.conversation, "messages", form)
    assert first == second
    # Nulls inside a schema are not those of absent fields.
    body = chat_body(translated.request)
    assert body["tools"] == chat["tools"]
    assert read_request(msgspec.json.encode(body)).request.tools == parsed.tools


@given(TURNS)
def test_places(turns: list[Turn]) -> None:
    """Every part of a translated request has the place in the client's that it came from."""
    message = {"model": "m", "system": "s", "messages": theirs(turns)}
    given = json.loads(json.dumps(message))
    translated = translate(read_messages(msgspec.json.encode(message)).request)
    checked = 0
    for index, one in enumerate(chat_body(translated.request)["messages"]):
        parts = one.get("content") or []
        for number, part in enumerate([{"text": parts}] if isinstance(parts, str) else parts):
            found: Any = given
            for step in translated.places.find(f"messages[{index}].content[{number}]").split("."):
                found = found[int(step)] if step.isdigit() else found[step]
            text = found if isinstance(found, str) else found.get("text", found.get("content"))
            assert part["text"] == text
            checked += 1
    assert checked >= 2 + 2 * len(turns)
