"""Rendering of a conversation to a prompt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from adapter.prompt.chat_template import ChatTemplate
from adapter.prompt.guard import Guard
from adapter.prompt.metered.budget import Budget
from adapter.prompt.tools_as_text import join_text_parts
from subnet.errors import InvalidRequest, SettingsError

RESERVED_VARIABLES = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token"}
)
"""Template variables that `chat_template_kwargs` must not set."""

# Template variables that turn reasoning on or off.
_REASONING_SWITCHES = ("enable_thinking", "thinking")

MAX_TEMPLATE_LENGTH = 64 * 1024
"""Maximum length of a custom chat template, in characters."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """Input of a chat template, as plain objects.

    `tools` are the tools that may be called. `effort_is_hint`: a template that does not support `reasoning_effort` may
    ignore it. `add_generation_prompt` None means True, unless the last message is continued.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    reasoning_effort: str | None = None
    effort_is_hint: bool = False
    verbosity: str | None = None
    chat_template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False

    @property
    def has_tools(self) -> bool:
        """True if there are tools, or calls or results of earlier ones."""
        return bool(self.tools) or any(each.get("tool_calls") or each["role"] == "tool" for each in self.messages)

    @property
    def needs_generation_prompt(self) -> bool:
        """True if the template must add a generation prompt, which starts the answer."""
        return self.add_generation_prompt is not False and not self.continue_final_message

    @property
    def answer_prefix(self) -> str | None:
        """`answer_prefix` of the prompt, see Prompt."""
        if self.needs_generation_prompt:
            return None
        return join_text_parts(self.messages[-1].get("content")) if self.continue_final_message else ""


class Prompt(msgspec.Struct, frozen=True):
    """Prompt text. `marked` has a `mark` in each control token that users wrote (see guard.py).

    `answer_prefix` is the part of the answer that the prompt already has: the text of the message that is continued, or
    "" without one. None: the template has added a generation prompt.
    """

    marked: str
    mark: str
    answer_prefix: str | None = None

    @property
    def text(self) -> str:
        """Prompt text without marks."""
        return self.marked.replace(self.mark, "") if self.mark else self.marked

    def starts_in_reasoning(self, opening: str, closing: str) -> bool:
        """Return True if the answer starts within reasoning, marked by the tags `opening` and `closing`: if the prompt
        ends with the opening tag, or the message that is continued has not closed it. Earlier messages are irrelevant.
        """
        if self.answer_prefix is None:
            return self.marked.rstrip().endswith(opening)
        return self.answer_prefix.rfind(opening) > self.answer_prefix.rfind(closing)


def render_conversation(
    conversation: Conversation, template: ChatTemplate, guard: Guard, budget: Budget | None = None
) -> Prompt:
    """Render a conversation. No string in it becomes a control token, wherever the template inserts it.

    `budget` is by default one that grows with the conversation. Raises InvalidRequest, which names the parameter, if
    the template rejects the conversation or does not support a parameter, and if a message is to be continued that is
    not the assistant's or has tool calls; and TemplateTooSlow.
    """
    _validate(conversation, template)
    variables = template_variables(
        template.variables,
        reasoning_effort=conversation.reasoning_effort,
        effort_is_hint=conversation.effort_is_hint,
        verbosity=conversation.verbosity,
        chat_template_kwargs=conversation.chat_template_kwargs,
    )
    if conversation.documents:
        variables["documents"] = conversation.documents
    unprotected = [conversation.messages, conversation.tools, *variables.values()]
    (messages, tools, *values), mark = guard.protect(unprotected)
    text = template.render(
        messages,
        tools=tools or None,
        add_generation_prompt=conversation.needs_generation_prompt,
        continue_final_message=conversation.continue_final_message,
        variables=dict(zip(variables, values, strict=True)),
        budget=budget,
    )
    return Prompt(text, mark, conversation.answer_prefix)


def custom_template(source: str, allowed: bool, bos_token: str = "", eos_token: str = "") -> ChatTemplate:
    """Return the template that a request provides. This takes up to a second, and the result is cached.

    Raises InvalidRequest unless it is `allowed` by the operator, and if the template is too long, does not compile, or
    takes too much time or memory with conversations of a few words.
    """
    if not allowed:
        raise InvalidRequest("Custom chat templates are not allowed on this gateway.", param="chat_template")
    if len(source) > MAX_TEMPLATE_LENGTH:
        raise _invalid("chat_template", f"expected at most {MAX_TEMPLATE_LENGTH} characters, but got {len(source)}")
    try:
        return _compile(source, bos_token, eos_token)
    except SettingsError as error:
        raise _invalid("chat_template", str(error)) from error


_compile = lru_cache(maxsize=16)(ChatTemplate)


def _validate(conversation: Conversation, template: ChatTemplate) -> None:
    if conversation.documents and "documents" not in template.variables:
        raise _invalid("documents", "the model's chat template does not support documents")
    if not conversation.continue_final_message:
        return
    last = conversation.messages[-1]
    if conversation.add_generation_prompt:
        raise _invalid("continue_final_message", "it cannot be combined with 'add_generation_prompt'")
    if last["role"] != "assistant" or last.get("tool_calls"):
        raise _invalid("continue_final_message", "the last message must be an assistant message without tool calls")


def template_variables(
    supported: Collection[str],
    *,
    reasoning_effort: str | None = None,
    effort_is_hint: bool = False,
    verbosity: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the variables that a request sets for a template. `chat_template_kwargs` take precedence.

    `supported` are the names of the variables that the template reads. A reasoning effort sets `reasoning_effort` and
    the variables that turn reasoning on or off, as far as they are supported.

    Raises InvalidRequest, which names the parameter, for RESERVED_VARIABLES in `chat_template_kwargs`, and for an
    effort that is no hint or a verbosity if the template does not support it. The effort "none" and the verbosity
    "medium" are always accepted.
    """
    kwargs = dict(chat_template_kwargs or {})
    for name in kwargs.keys() & RESERVED_VARIABLES:
        raise _invalid(f"chat_template_kwargs.{name}", "this variable is reserved")
    if verbosity is not None and "verbosity" not in supported and verbosity != "medium":
        raise _invalid("verbosity", "the model's chat template does not support verbosity")
    effort = {} if reasoning_effort is None else _effort_variables(reasoning_effort, supported, effort_is_hint)
    return effort | ({} if verbosity is None else {"verbosity": verbosity}) | kwargs


def _effort_variables(effort: str, supported: Collection[str], is_hint: bool) -> dict[str, Any]:
    variables: dict[str, Any] = {name: effort != "none" for name in _REASONING_SWITCHES if name in supported}
    if "reasoning_effort" in supported:
        variables["reasoning_effort"] = effort
    if not variables and effort != "none" and not is_hint:
        raise _invalid("reasoning_effort", "the model's chat template does not support reasoning effort")
    return variables


def _invalid(param: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{param}': {reason}.", param=param)
