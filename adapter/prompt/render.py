"""A conversation, written down for a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from adapter.prompt.chat_template import ChatTemplate
from adapter.prompt.guard import Guard
from adapter.prompt.tools_as_text import joined
from subnet.errors import InvalidRequest, SettingsError

OURS = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token"}
)
"""Names that `chat_template_kwargs` may not set."""

_SWITCHES = ("enable_thinking", "thinking")


LONGEST_TEMPLATE = 64 * 1024


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """All that a template is given, as plain objects. `tools` are those that may be called.

    `add_generation_prompt` None: where no message is continued.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    reasoning_effort: str | None = None
    verbosity: str | None = None
    chat_template_kwargs: dict[str, Any] = {}
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False

    @property
    def opens(self) -> bool:
        """Whether the template is to open the answer."""
        return self.add_generation_prompt is not False and not self.continue_final_message

    @property
    def begun(self) -> str | None:
        """As in Prompt."""
        if self.opens:
            return None
        return joined(self.messages[-1].get("content")) if self.continue_final_message else ""


class Prompt(msgspec.Struct, frozen=True):
    """A conversation as text, and `mark`, which `encode_prompt` removes: see prompt/guard.py. `begun` is what of the
    answer is there already: what a continued message says, or None where the template opens the answer."""

    marked: str
    mark: str
    begun: str | None = None

    @property
    def text(self) -> str:
        return self.marked.replace(self.mark, "") if self.mark else self.marked

    def opened(self, opening: str, closing: str) -> bool:
        """Whether the answer goes on inside reasoning between these tags, by the template's words or by the message
        that is continued. What was said before tells nothing of that."""
        if self.begun is None:
            return self.marked.rstrip().endswith(opening)
        return self.begun.rfind(opening) > self.begun.rfind(closing)


def write(conversation: Conversation, template: ChatTemplate, guard: Guard) -> Prompt:
    """No string of the conversation becomes a control token, wherever the template puts it.

    Raises InvalidRequest, which names the parameter, for what the template does not accept or knows nothing of, and
    for a message to be continued that is none of the assistant's.
    """
    _check(conversation, template)
    given = variables(
        template.variables,
        reasoning_effort=conversation.reasoning_effort,
        verbosity=conversation.verbosity,
        chat_template_kwargs=conversation.chat_template_kwargs,
    )
    if conversation.documents:
        given["documents"] = conversation.documents
    plain = [conversation.messages, conversation.tools, *given.values()]
    (messages, tools, *values), mark = guard.protect(plain)
    text = template.render(
        messages,
        tools=tools or None,
        add_generation_prompt=conversation.opens,
        continue_final_message=conversation.continue_final_message,
        variables=dict(zip(given, values, strict=True)),
    )
    return Prompt(text, mark, conversation.begun)


def own_template(source: str, permitted: bool, bos_token: str = "", eos_token: str = "") -> ChatTemplate:
    """A template that a request brings itself, which its loops can make run for any time: so only where the operator
    permits it. Takes milliseconds, and is kept. Raises InvalidRequest."""
    if not permitted:
        raise InvalidRequest("Custom chat templates are not allowed on this gateway.", param="chat_template")
    if len(source) > LONGEST_TEMPLATE:
        raise _refused("chat_template", f"expected at most {LONGEST_TEMPLATE} characters, but got {len(source)}")
    try:
        return _compiled(source, bos_token, eos_token)
    except SettingsError as error:
        raise _refused("chat_template", str(error)) from error


_compiled = lru_cache(maxsize=16)(ChatTemplate)


def _check(conversation: Conversation, template: ChatTemplate) -> None:
    if conversation.documents and "documents" not in template.variables:
        raise _refused("documents", "the model's chat template does not support documents")
    if not conversation.continue_final_message:
        return
    last = conversation.messages[-1]
    if conversation.add_generation_prompt:
        raise _refused("continue_final_message", "it cannot be combined with 'add_generation_prompt'")
    if last["role"] != "assistant" or last.get("tool_calls"):
        raise _refused("continue_final_message", "the last message must be an assistant message without tool calls")


def variables(
    known: Collection[str],
    *,
    reasoning_effort: str | None = None,
    verbosity: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What to render with; `known` are the names that the template reads, and `chat_template_kwargs` go before all.

    An effort is given to a template that knows efforts, and turns thinking on or off in one that knows only that.
    Raises InvalidRequest, which names the parameter, for an effort or a verbosity that the template knows nothing of,
    save for "none" and "medium", which ask for nothing; and for names of OURS.
    """
    given = dict(chat_template_kwargs or {})
    for name in given.keys() & OURS:
        raise _refused(f"chat_template_kwargs.{name}", "this variable is reserved")
    if verbosity is not None and "verbosity" not in known and verbosity != "medium":
        raise _refused("verbosity", "the model's chat template does not support verbosity")
    effort = {} if reasoning_effort is None else _effort(reasoning_effort, known)
    return effort | ({} if verbosity is None else {"verbosity": verbosity}) | given


def _effort(effort: str, known: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: effort != "none" for name in _SWITCHES if name in known}
    if "reasoning_effort" in known:
        found["reasoning_effort"] = effort
    if not found and effort != "none":
        raise _refused("reasoning_effort", "the model's chat template does not support reasoning effort")
    return found


def _refused(place: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{place}': {why}.", param=place)
