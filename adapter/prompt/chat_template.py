"""Rendering of messages to the text format that a model was trained on, with the model's Jinja template."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jinja2 import TemplateError

from adapter.prompt.jinja_template import JinjaTemplate
from adapter.prompt.message_form import Message
from adapter.prompt.metered.budget import Budget, BudgetExceeded
from adapter.prompt.metered.context import MAX_MESSAGE
from adapter.prompt.probes import NO_SYSTEM, described, find_features, with_tools
from adapter.prompt.tools_as_text import add_tools_as_text, join_text_parts
from subnet.errors import InvalidRequest, SettingsError

DEFAULT_TEMPLATE = """\
{%- for message in messages %}
{{- message.role | capitalize }}: {{ message.content }}{{ "\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}"""
"""Template for models that have none: plain text without control tokens."""

_END = "\ufffe"
"""Noncharacter that is appended to a message to be continued. Only its last occurrence in the rendered text counts."""


_TOO_SLOW = (
    "The model's chat template takes too much time or memory for these messages. Please send fewer or shorter messages."
)


class TemplateTooSlow(InvalidRequest):
    """The template exceeds its budget, which grows with the messages: other messages may be fine."""


class ChatTemplate:
    """Chat template in Hugging Face's dialect of Jinja.

    `supports_tools`: the template renders tools, calls and their results. If it does not, `render` writes them into
    the messages (see tools_as_text.py). `variables` are the names that it reads. Messages are given to it in the form
    that it expects, which is found out by rendering some (see probes.py). `last_units` is what the last rendering took.

    The sandbox limits a template to its variables, and a budget limits its work and memory: loops, macros and all that
    it makes are counted, and results that are too large are refused before they are made (see budget.py). The budget
    grows with the messages, so that a template which takes a constant time for a message can render any number. A
    template of a node can still write any prompt. Messages are data, and are never evaluated as templates.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Compile the template and find out what it supports.

        Raises SettingsError if it does not compile, or exceeds its budget with conversations of a few words.
        """
        self.source = source
        self._template = JinjaTemplate(source, bos_token, eos_token)
        self.variables = self._template.variables
        try:
            self.features = find_features(self._template, source)
        except BudgetExceeded as error:
            raise SettingsError(f"{error}, even with a short conversation") from error
        self.supports_tools = self.features.renders_tools
        self.last_units = 0

    def describing_tools(self) -> ChatTemplate:
        """Return this template without its support of tools, so that `render` writes them into the messages."""
        result = copy.copy(self)
        result.supports_tools = False
        return result

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        deadline: float | None = None,
    ) -> str:
        """Return the prompt text.

        Several text parts are joined by the template if it supports that, else with line feeds, and the role
        `developer` becomes `system` if the template does not mention it. With `continue_final_message` the text ends
        with the last message's content. `budget` and `deadline` are as for JinjaTemplate. Raises InvalidRequest, with
        the template's own message, if it rejects the messages, and TemplateTooSlow.
        """
        try:
            if not self.supports_tools:
                messages, tools = add_tools_as_text(messages, tools or (), self.features.renders_system), None
            elif tools and self.features.tools_need_system and messages[0]["role"] not in ("system", "developer"):
                messages = [NO_SYSTEM, *messages]
            if tools and (required := self.features.descriptions) != "none":
                tools = [described(tool, required == "properties") for tool in tools]
            shown = self.features.no_tools if tools is None else tools
            context = {**self._more_variables(tools), **(variables or {}), **with_tools(shown)}
            render = partial(self._render_messages, budget=budget, deadline=deadline)
            if continue_final_message:
                return _render_continued(render, messages, context)
            return render(messages, context, add_generation_prompt)
        except BudgetExceeded as error:
            raise TemplateTooSlow(_TOO_SLOW, param="messages") from error
        except Exception as error:  # templates can raise any exception for messages that they do not support
            reason = str(error)[:MAX_MESSAGE] or type(error).__name__
            message = f"The model's chat template rejected the messages: {reason}"
            raise InvalidRequest(message, param="messages") from error

    def _more_variables(self, tools: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
        """Return what Firefunction's templates read instead of `tools`: a text, and the time."""
        if "functions" not in self.variables:
            return {}
        functions = json.dumps(tools, indent=2, ensure_ascii=False) if tools else ""
        return {"functions": functions, "datetime": datetime.now(UTC).strftime("%b %d %Y %H:%M:%S GMT")}

    def _render_messages(
        self,
        messages: Sequence[Message],
        context: Mapping[str, Any],
        add_generation_prompt: bool,
        budget: Budget | None,
        deadline: float | None,
    ) -> str:
        adapted = self.features.form.adapt(messages)
        variables = {**context, "messages": adapted, "add_generation_prompt": add_generation_prompt}
        budget = budget or Budget(variables=variables)
        try:
            return self._template.render(variables, budget, deadline)
        finally:
            self.last_units = budget.spent


def _render_continued(render: Callable[..., str], messages: Sequence[Message], context: Mapping[str, Any]) -> str:
    """Mark the end of the last message's content, and cut off the rendered text there."""
    last = {**messages[-1], "content": _with_end(messages[-1].get("content"))}
    text, end, _ = render([*messages[:-1], last], context, False).rpartition(_END)
    if not end:
        raise TemplateError("it does not render the last message, which is to be continued")
    return text


def _with_end(content: object) -> object:
    if isinstance(content, list) and content:
        return [*content[:-1], {**content[-1], "text": content[-1]["text"] + _END}]
    return join_text_parts(content) + _END
