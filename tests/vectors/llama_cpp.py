"""Cases of llama.cpp's tests/test-chat.cpp: a template, the text of an answer, and what it must become."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from adapter.generation.read_back import Message
from tests.vectors.cpp import Call, Reader, Token, Unreadable, tokens_of
from tests.vectors.set_up import FOLDER

SOURCE = FOLDER / "llama.cpp" / "tests" / "test-chat.cpp"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Case at a `line`. `parameters` are those of the request; of messages and tools as in OpenAI's API."""

    line: int
    template: str
    text: str
    expected: Message
    parameters: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.template}:{self.line}"

    @property
    def tools(self) -> list[dict[str, Any]]:
        return [_tool(*tool) for tool in self.parameters.get("tools", ())]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [_as_openai(*each) for each in self.parameters.get("messages", ())] or [
            {"role": "user", "content": "Hi"}
        ]


class _Each(list[str]):
    """Values of a variable, one after another."""


def _assistant(content: str, reasoning: str = "", name: str = "", arguments: str = "", id: str = "") -> list[Any]:
    calls = [[name, arguments, id]] if name or id else []
    return ["assistant", content, [], calls, reasoning]


_FUNCTIONS: dict[str, Callable[..., list[Any]]] = {
    "simple_assist_msg": _assistant,
    "message_with_tool_calls": lambda name, arguments: _assistant("", "", name, arguments),
    "message_with_tool_calls_and_reasoning": lambda name, arguments, why: _assistant("", why, name, arguments),
    "message_with_content_and_tool_call": lambda content, name, args: _assistant(content, "", name, args),
    "message_with_reasoning_and_tool_call": lambda why, name, args: _assistant("", why, name, args),
    "message_with_reasoning_content_and_multiple_tool_calls": lambda why, content, calls: [
        *("assistant", content, []),
        [[name, args, ""] for name, args in calls],
        why,
    ],
}


def read_cases() -> tuple[list[Case], list[str]]:
    """Return the cases that can be read, and what of the others cannot."""
    tokens = tokens_of(SOURCE.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"template_path": _Each(_called_with(tokens, "test_lfm2_parser"))}
    testers: dict[str, list[str]] = {}
    cases: list[Case] = []
    unreadable: list[str] = []
    for at in range(len(tokens) - 3):
        reader = Reader(tokens, names, _FUNCTIONS)
        one, two, three = (token.value for token in tokens[at : at + 3])
        try:
            if one == "peg_tester" and two == "(":
                reader.at = at + 2
                path = reader.value()
                testers[_assigned(tokens, at)] = path if isinstance(path, _Each) else [path]
            elif one in testers and (two, three) == (".", "test"):
                reader.at = at + 1
                cases += _cases(tokens[at].line, testers[one], list(reader.chain()))
            elif (tokens[at].kind == "name" and two in ("=", "{")) or (one == ":" and two == "{"):
                _remember(reader, names, at)
        except Unreadable as error:
            if two == ".":
                unreadable.append(f"{tokens[at].line}: {error}")
    return cases, unreadable


def _remember(reader: Reader, names: dict[str, Any], at: int) -> None:
    """Read the value of a variable: `name = value;`, `name{value};` or `for (name : {values})`."""
    first = reader.tokens[at].value
    reader.at = at + (2 if reader.tokens[at + 1].value == "=" else 1)
    value = reader.value()
    if first == ":":
        names[reader.tokens[at - 1].value] = _Each(value)
    elif reader.tokens[reader.at].value == ";":
        names[first] = value


def _called_with(tokens: list[Token], name: str) -> Iterator[str]:
    for at, token in enumerate(tokens[:-2]):
        if token.value == name and tokens[at + 2].kind == "text":
            yield tokens[at + 2].value


def _assigned(tokens: list[Token], at: int) -> str:
    return str(tokens[at - 2].value)


def _cases(line: int, paths: list[str], chain: list[Call]) -> Iterator[Case]:
    text, parameters = str(chain[0].arguments[0]), dict[str, Any]()
    expected: list[Any] = ["assistant", "", [], [], ""]
    for call in chain[1:]:
        value: Any = call.arguments[0] if call.arguments else True
        if call.name == "expect":
            expected = [*value, *expected[len(value) :]]
        elif call.name.startswith("expect_"):
            index = {"expect_content": 1, "expect_tool_calls": 3, "expect_reasoning": 4}.get(call.name)
            if index is not None:
                expected[index] = value
        else:
            parameters[call.name] = value
    if chain[-1].name != "run":
        raise Unreadable("a test that is not run")
    message = Message(
        expected[1].strip(), expected[4].strip(), tuple((name, _decoded(args)) for name, args, *_ in expected[3])
    )
    for path in paths:
        template = path.rpartition("/")[2]
        yield Case(line=line, template=template, text=text, expected=message, parameters=parameters)


def _decoded(arguments: str) -> object:
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def _tool(name: str, description: str, parameters: str) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": json.loads(parameters)}
    return {"type": "function", "function": function}


def _as_openai(
    role: str,
    content: str,
    parts: list[Any],
    calls: list[Any] = [],  # noqa: B006
    reasoning: str = "",
    name: str = "",
    call_id: str = "",
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": role, "content": content}
    if parts:
        message["content"] = [{"type": kind, "text": text} for kind, text in parts]
    if calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": _decoded(arguments)}}
            for name, arguments, id in calls
        ]
    optional = {"reasoning_content": reasoning, "name": name, "tool_call_id": call_id}
    return message | {key: value for key, value in optional.items() if value}
