"""What a request says to the template itself, beside the messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from subnet.errors import InvalidRequest

OURS = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token"}
)
"""Names that `chat_template_kwargs` may not set."""

_SWITCHES = ("enable_thinking", "thinking")


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
