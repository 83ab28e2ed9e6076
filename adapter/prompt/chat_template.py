"""Messages -> the text that a model was trained on, by the Jinja template that comes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeGuard

from jinja2 import Template, TemplateError, meta
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context

from adapter.prompt import tools_as_text
from adapter.prompt.sandbox import LONGEST, environment
from subnet.errors import InvalidRequest, SettingsError

TEXT = "\ufdd0"
NAME = "probed_function"

QUESTION = {"role": "user", "content": "x"}
SYSTEM = {"role": "system", "content": TEXT}

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "x",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "string", "description": "x"}},
            "required": ["x"],
        },
    },
}


RESULT = "probed_result"
CALL: list[dict[str, Any]] = [
    QUESTION,
    {
        "role": "assistant",
        "content": "",
        # Mistral's templates want ids of nine letters and digits.
        "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": NAME, "arguments": {"x": "y"}}}],
    },
    {"role": "tool", "content": RESULT, "tool_call_id": "call00001", "name": NAME},
]


DEFAULT_TEMPLATE = """\
{%- for message in messages %}
{{- message.role | capitalize }}: {{ message.content }}{{ "\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}"""
"""For a model without a template: plain text that needs no control tokens."""

_END = "\ufffe"
"""A noncharacter, put where a message is to be continued. Only its last place counts."""

Message = Mapping[str, Any]


class ChatTemplate:
    """A template in the dialect that model authors write for: Hugging Face's.

    `wants_parts`: it takes content as a list of parts only, not as a string; `render` gives it what it wants.
    `knows_tools`: it shows tools, calls and their results. Where it does not, `render` writes them into the messages:
    see prompt/tools_as_text.py. `variables` are the names that it reads and that a request may set.

    The sandbox keeps a template from everything but its variables and from ranges of over 100,000 items, and
    `LONGEST` bounds what it renders. Loops in loops can still take any time, and text that a template builds up in
    variables any memory, so a template is only as safe as the node that it comes from. Messages are data, and never
    become a template.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Raises SettingsError for a template that does not compile."""
        self._template, self.variables = _compile(source)
        self._given = {**self._template.globals, "bos_token": bos_token, "eos_token": eos_token}
        self._knows_developer = "developer" in source
        self.wants_parts = self._takes([{"type": "text", "text": TEXT}]) and not self._takes(TEXT)
        self._arguments_as_text = False
        self._knows_system = self._shows(TEXT, [SYSTEM, QUESTION])
        self._arguments_as_text = not self._shows_calls()
        self.knows_tools = self._shows(NAME, [QUESTION], tools=[TOOL]) and self._shows_calls()

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Text parts are joined by line feeds, and developers become system where the template knows no better.
        With `continue_final_message` the text ends where the last message's content does.

        Raises InvalidRequest, with the template's own words, where it does not accept the messages.
        """
        try:
            if not self.knows_tools:
                messages, tools = tools_as_text.written(messages, tools or (), self._knows_system), None
            given = {**(variables or {}), "tools": tools}
            if continue_final_message:
                return self._open(messages, given)
            return self._adapt(messages, given, add_generation_prompt)
        except Exception as error:  # whatever went wrong in there, the messages did not suit the template
            reason = str(error) or type(error).__name__
            message = f"The model's chat template rejected the messages: {reason}"
            raise InvalidRequest(message, param="messages") from error

    def _open(self, messages: Sequence[Message], given: Mapping[str, Any]) -> str:
        """The end of the last message's content is marked, and what follows it cut off."""
        last = {**messages[-1], "content": tools_as_text.joined(messages[-1].get("content")) + _END}
        text, end, _ = self._adapt([*messages[:-1], last], given, False).rpartition(_END)
        if not end:
            raise TemplateError("it does not render the last message, which is to be continued")
        return text

    def _adapt(self, messages: Sequence[Message], given: Mapping[str, Any], opens: bool) -> str:
        adapted = [self._adapted(message) for message in messages]
        return self._render({**given, "messages": adapted, "add_generation_prompt": opens})

    def _render(self, given: Mapping[str, Any]) -> str:
        # The template's `generate` does the same, but makes and copies the globals anew each time.
        context = Context(environment, {**self._given, **given}, None, self._template.blocks)
        pieces, size = [], 0
        for piece in self._template.root_render_func(context):
            size += len(piece)
            if size > LONGEST:
                raise SecurityError(f"the rendered prompt exceeds {LONGEST} characters")
            pieces.append(piece)
        return "".join(pieces)

    def _adapted(self, message: Message) -> Message:
        content = message.get("content")
        changes: dict[str, Any] = {}
        if message["role"] == "developer" and not self._knows_developer:
            changes["role"] = "system"
        if self.wants_parts and isinstance(content, str):
            changes["content"] = [{"type": "text", "text": content}]
        elif not self.wants_parts and _is_text(content):
            changes["content"] = tools_as_text.joined(content)
        if self._arguments_as_text and message.get("tool_calls"):
            changes["tool_calls"] = tools_as_text.arguments_as_text(message["tool_calls"])
        return {**message, **changes} if changes else message

    def _takes(self, content: object) -> bool:
        """Whether content of this form ends up in the prompt as text, and not as a list written out."""
        text = self._tried([{"role": "user", "content": content}])
        return TEXT in text and "'type'" not in text and '"type"' not in text

    def _shows_calls(self) -> bool:
        return self._shows(NAME, CALL) and self._shows(RESULT, CALL)

    def _shows(self, probe: str, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> bool:
        return probe in self._tried([self._adapted(message) for message in messages], tools)

    def _tried(self, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> str:
        try:
            return self._render({"messages": messages, "tools": tools, "add_generation_prompt": False})
        except Exception:  # as in render: it does not take this
            return ""


def _is_text(content: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content)


@lru_cache(maxsize=64)
def _compile(source: str) -> tuple[Template, frozenset[str]]:
    """And the names that it looks up in what it is given."""
    try:
        names = meta.find_undeclared_variables(environment.parse(source))
        return environment.from_string(source), frozenset(names)
    except (TemplateError, RecursionError) as error:
        line = f" (line {lineno})" if (lineno := getattr(error, "lineno", None)) else ""
        raise SettingsError(f"the chat template does not compile{line}: {error}") from error
