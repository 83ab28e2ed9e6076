"""Rendering of messages to the text format that a model was trained on, with the model's Jinja template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeGuard

from jinja2 import Template, TemplateError, meta
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context

from adapter.prompt import tools_as_text
from adapter.prompt.sandbox import MAX_RENDERED, environment
from subnet.errors import InvalidRequest, SettingsError

# Messages and tools that are rendered to find out what a template supports.
_PROBE_TEXT = "\ufdd0"
_PROBE_NAME = "probed_function"
_PROBE_RESULT = "probed_result"

_QUESTION = {"role": "user", "content": "x"}
_SYSTEM_MESSAGE = {"role": "system", "content": _PROBE_TEXT}

_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _PROBE_NAME,
        "description": "x",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "string", "description": "x"}},
            "required": ["x"],
        },
    },
}

_CALL_MESSAGES: list[dict[str, Any]] = [
    _QUESTION,
    {
        "role": "assistant",
        "content": "",
        # Mistral's templates require ids of nine letters and digits.
        "tool_calls": [
            {"id": "call00001", "type": "function", "function": {"name": _PROBE_NAME, "arguments": {"x": "y"}}}
        ],
    },
    {"role": "tool", "content": _PROBE_RESULT, "tool_call_id": "call00001", "name": _PROBE_NAME},
]


DEFAULT_TEMPLATE = """\
{%- for message in messages %}
{{- message.role | capitalize }}: {{ message.content }}{{ "\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}"""
"""Template for models that have none: plain text without control tokens."""

_END = "\ufffe"
"""Noncharacter that is appended to a message to be continued. Only its last occurrence in the rendered text counts."""

Message = Mapping[str, Any]


class ChatTemplate:
    """Chat template in Hugging Face's dialect of Jinja.

    `requires_content_parts`: the template supports content only as a list of parts, not as a string; `render` converts
    it. `supports_tools`: the template renders tools, calls and their results. If it does not, `render` writes them into
    the messages (see tools_as_text.py). `variables` are the names that it reads.

    The sandbox limits a template to its variables and to ranges of at most 100,000 items, and MAX_RENDERED limits its
    output. But nested loops can take any time, and text collected in variables any memory, so a template is only as
    trustworthy as the node that it comes from. Messages are data, and are never evaluated as templates.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Compile the template and find out what it supports. Raises SettingsError if it does not compile."""
        self._template, self.variables = _compile(source)
        self._globals = {**self._template.globals, "bos_token": bos_token, "eos_token": eos_token}
        self._supports_developer = "developer" in source
        parts = [{"type": "text", "text": _PROBE_TEXT}]
        self.requires_content_parts = self._supports_content(parts) and not self._supports_content(_PROBE_TEXT)
        self._encodes_arguments = False
        self._supports_system = self._renders(_PROBE_TEXT, [_SYSTEM_MESSAGE, _QUESTION])
        # Some templates expect arguments as JSON instead of as objects.
        self._encodes_arguments = not self._renders_calls()
        self.supports_tools = self._renders(_PROBE_NAME, [_QUESTION], tools=[_TOOL]) and self._renders_calls()

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt text.

        Text parts are joined with line feeds unless the template requires parts, and the role `developer` becomes
        `system` if the template does not mention it. With `continue_final_message` the text ends with the last
        message's content. Raises InvalidRequest, with the template's own message, if it rejects the messages.
        """
        try:
            if not self.supports_tools:
                messages, tools = tools_as_text.add_tools_as_text(messages, tools or (), self._supports_system), None
            context = {**(variables or {}), "tools": tools}
            if continue_final_message:
                return self._render_continued(messages, context)
            return self._render_messages(messages, context, add_generation_prompt)
        except Exception as error:  # templates can raise any exception for messages that they do not support
            reason = str(error) or type(error).__name__
            message = f"The model's chat template rejected the messages: {reason}"
            raise InvalidRequest(message, param="messages") from error

    def _render_continued(self, messages: Sequence[Message], context: Mapping[str, Any]) -> str:
        """Mark the end of the last message's content, and cut off the rendered text there."""
        last = {**messages[-1], "content": tools_as_text.join_text_parts(messages[-1].get("content")) + _END}
        text, end, _ = self._render_messages([*messages[:-1], last], context, False).rpartition(_END)
        if not end:
            raise TemplateError("it does not render the last message, which is to be continued")
        return text

    def _render_messages(
        self, messages: Sequence[Message], context: Mapping[str, Any], add_generation_prompt: bool
    ) -> str:
        adapted = [self._adapt(message) for message in messages]
        return self._render({**context, "messages": adapted, "add_generation_prompt": add_generation_prompt})

    def _render(self, variables: Mapping[str, Any]) -> str:
        # The template's `generate` does the same, but creates and copies the globals each time.
        context = Context(environment, {**self._globals, **variables}, None, self._template.blocks)
        pieces, size = [], 0
        for piece in self._template.root_render_func(context):
            size += len(piece)
            if size > MAX_RENDERED:
                raise SecurityError(f"the rendered prompt exceeds {MAX_RENDERED} characters")
            pieces.append(piece)
        return "".join(pieces)

    def _adapt(self, message: Message) -> Message:
        """Return the message in the form that the template supports."""
        content = message.get("content")
        changes: dict[str, Any] = {}
        if message["role"] == "developer" and not self._supports_developer:
            changes["role"] = "system"
        if self.requires_content_parts and isinstance(content, str):
            changes["content"] = [{"type": "text", "text": content}]
        elif not self.requires_content_parts and _is_text_parts(content):
            changes["content"] = tools_as_text.join_text_parts(content)
        if self._encodes_arguments and message.get("tool_calls"):
            changes["tool_calls"] = tools_as_text.encode_arguments(message["tool_calls"])
        return {**message, **changes} if changes else message

    def _supports_content(self, content: object) -> bool:
        """Return True if content of this form is rendered as text, and not as the representation of a list."""
        text = self._try_render([{"role": "user", "content": content}])
        return _PROBE_TEXT in text and "'type'" not in text and '"type"' not in text

    def _renders_calls(self) -> bool:
        return self._renders(_PROBE_NAME, _CALL_MESSAGES) and self._renders(_PROBE_RESULT, _CALL_MESSAGES)

    def _renders(self, probe: str, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> bool:
        """Return True if `probe`, a text in `messages` or `tools`, is in the rendered text."""
        return probe in self._try_render([self._adapt(message) for message in messages], tools)

    def _try_render(self, messages: Sequence[Message], tools: Sequence[Message] | None = None) -> str:
        """Return the rendered text, or "" if the template rejects the messages."""
        try:
            return self._render({"messages": messages, "tools": tools, "add_generation_prompt": False})
        except Exception:  # as in `render`: templates can raise any exception
            return ""


def _is_text_parts(content: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content)


@lru_cache(maxsize=64)
def _compile(source: str) -> tuple[Template, frozenset[str]]:
    """Compile a template. Returns it with the names of the variables that it reads. Raises SettingsError."""
    try:
        variables = meta.find_undeclared_variables(environment.parse(source))
        return environment.from_string(source), frozenset(variables)
    except (TemplateError, RecursionError) as error:
        line = f" (line {lineno})" if (lineno := getattr(error, "lineno", None)) else ""
        raise SettingsError(f"the chat template does not compile{line}: {error}") from error
