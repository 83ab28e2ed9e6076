"""Messages -> the text that a model was trained on, by the Jinja template that comes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeGuard

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError

from adapter.prompt.sandbox import LONGEST, environment
from subnet.errors import InvalidRequest, SettingsError

DEFAULT_TEMPLATE = """\
{%- for message in messages %}
{{- message.role | capitalize }}: {{ message.content }}{{ "\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant:{% endif %}"""
"""For a model without a template: plain text that needs no control tokens."""

_PROBE = "\ufdd0"

Message = Mapping[str, Any]


class ChatTemplate:
    """A template in the dialect that model authors write for: Hugging Face's.

    `wants_parts` says that the template takes content as a list of parts only, not as a string; `render` gives it
    what it wants.

    The sandbox keeps a template from everything but its variables and from ranges of over 100,000 items, and
    `LONGEST` bounds what it renders. Loops in loops can still take any time, and text that a template builds up in
    variables any memory, so a template is only as safe as the node that it comes from. Messages are data, and never
    become a template.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Raises SettingsError for a template that does not compile."""
        self._template = _compile(source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._knows_developer = "developer" in source
        self.wants_parts = self._shows([{"type": "text", "text": _PROBE}]) and not self._shows(_PROBE)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Text parts are joined by line feeds, and developers become system where the template knows no better.

        Raises InvalidRequest, with the template's own words, where it does not accept the messages.
        """
        try:
            return self._render(
                messages=[self._adapted(message) for message in messages],
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                **variables,
            )
        except Exception as error:  # whatever went wrong in there, the messages did not suit the template
            reason = str(error) or type(error).__name__
            message = f"the model's chat template does not accept the messages: {reason}"
            raise InvalidRequest(message, param="messages") from error

    def _render(self, **variables: Any) -> str:
        pieces, size = [], 0
        for piece in self._template.generate(self._tokens | variables):
            size += len(piece)
            if size > LONGEST:
                raise SecurityError(f"it renders more than {LONGEST} characters")
            pieces.append(piece)
        return "".join(pieces)

    def _adapted(self, message: Message) -> dict[str, Any]:
        adapted = dict(message)
        if adapted.get("role") == "developer" and not self._knows_developer:
            adapted["role"] = "system"
        content = adapted.get("content")
        if isinstance(content, str) and self.wants_parts:
            adapted["content"] = [{"type": "text", "text": content}]
        elif _is_text(content) and not self.wants_parts:
            adapted["content"] = "\n".join(part["text"] for part in content)
        return adapted

    def _shows(self, content: object) -> bool:
        """Whether content of this form ends up in the prompt as text, and not as a list written out."""
        try:
            text = self._render(messages=[{"role": "user", "content": content}], add_generation_prompt=False)
        except Exception:  # as in render: it does not take this form
            return False
        return _PROBE in text and "'type'" not in text and '"type"' not in text


def _is_text(content: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content)


@lru_cache(maxsize=64)
def _compile(source: str) -> Template:
    try:
        return environment.from_string(source)
    except (TemplateError, RecursionError) as error:
        line = f" (line {lineno})" if (lineno := getattr(error, "lineno", None)) else ""
        raise SettingsError(f"the chat template does not compile{line}: {error}") from error
